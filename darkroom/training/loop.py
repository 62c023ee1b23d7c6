"""Train a classifier: epochs, validation, the best one kept, a checkpoint after each.

Augmentation, order and dropout follow from (seed, epoch), so a training that was killed
and started again ends as if nothing had happened.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from darkroom.config import Hyperparameters
from darkroom.dataset import Dataset
from darkroom.model.network import build_model
from darkroom.progress import SILENT, Progress, Task
from darkroom.training.checkpoints import (
    CHECKPOINT_FILE,
    BrokenCheckpointError,
    Checkpoint,
    disk_errors,
    read_checkpoint,
    training_identity,
    write_checkpoint,
)
from darkroom.training.distributed import ProcessGroup, process_group
from darkroom.training.epochs import EpochRunner
from darkroom.training.examples import check_splits, load_examples
from darkroom.training.history import EpochMetrics, best_epoch, is_exhausted, write_history
from darkroom.training.shares import TrainingShares, check_batches
from darkroom.training.threads import compute_threads

__all__ = ["EpochMetrics", "TrainingResult", "train"]

CHECKPOINT_FOLDER = "checkpoint"
HISTORY_FILE = "history.json"


@dataclass(frozen=True)
class TrainingResult:
    """A trained classifier."""

    model: nn.Module
    """With the best epoch's weights, in eval mode, on the CPU."""
    history: list[EpochMetrics]
    best_epoch: int
    """From 1."""
    metrics: dict[str, float]
    """Of the validation split at the best epoch."""
    stopped_early: bool


def train(
    dataset: Dataset,
    *,
    hyperparameters: Hyperparameters,
    folder: Path,
    cache: Path,
    held: frozenset[str] | None = None,
    on_epoch: Callable[[EpochMetrics], None] | None = None,
    progress: Progress = SILENT,
) -> TrainingResult:
    """Train on the training split, keep the epoch that does best on the validation split.

    Under torchrun every process calls this with the same arguments; the first alone writes
    files, reports progress and calls `on_epoch`; all return the same result.

    Args:
        dataset: every image of which can be decoded.
        hyperparameters: everything that shapes the result. `weights` is no URI any more,
            but a local path, 'imagenet' or 'none'.
        folder: gets `checkpoint/` and `history.json`. A checkpoint there of the same data
            and hyperparameters is gone on from.
        cache: where decoded images are kept for later trainings.
        held: paths of the images on this host, where each has a part of the training
            images; None: all are here.
        on_epoch: called after each epoch; first, when going on from a checkpoint, for the
            epochs in it. What it raises ends the training and leaves the checkpoint.
        progress: shows optimiser steps, and a line for each epoch.

    Raises:
        UserError: an empty split, too small a batch, weights or images that are unusable.
        DarkroomError: the loss is no longer finite, or the disk is full.
    """
    check_splits(dataset)
    with (
        compute_threads(hyperparameters.threads, image_size=hyperparameters.image_size),
        process_group() as group,
        _own_randomness(group),
    ):
        training = _prepare(
            dataset,
            hyperparameters=hyperparameters,
            folder=folder,
            cache=cache,
            held=held,
            group=group,
            progress=progress if group.is_first else SILENT,
        )
        return training.run(on_epoch if group.is_first else None)


def _prepare(
    dataset: Dataset,
    *,
    hyperparameters: Hyperparameters,
    folder: Path,
    cache: Path,
    held: frozenset[str] | None,
    group: ProcessGroup,
    progress: Progress,
) -> "_Training":
    shares = TrainingShares.of(dataset, held=held, group=group)
    model = _network(dataset, hyperparameters=hyperparameters, shares=shares)
    load = partial(
        load_examples,
        shares.dataset,
        resize_size=hyperparameters.working_size,
        folder=cache,
        group=group,
        progress=progress,
    )
    epochs = EpochRunner(
        model,
        train=load(split="train"),
        validation=load(split="validation"),
        classes=len(dataset.classes),
        hyperparameters=hyperparameters,
        shares=shares,
        group=group,
    )
    return _Training(
        epochs,
        hyperparameters=hyperparameters,
        folder=folder,
        group=group,
        identity=training_identity(dataset, hyperparameters=hyperparameters),
        progress=progress,
    )


def _network(
    dataset: Dataset, *, hyperparameters: Hyperparameters, shares: TrainingShares
) -> nn.Module:
    """The network to be trained, once it is sure that the batches suit it."""
    model = build_model(
        hyperparameters.architecture,
        classes=len(dataset.classes),
        weights=hyperparameters.weights,
        fine_tune=hyperparameters.fine_tune,
        image_size=hyperparameters.image_size,
        seed=hyperparameters.seed,
    )
    check_batches(shares, model=model, hyperparameters=hyperparameters)
    return model


class _Training:
    """A way through the epochs, with what has to survive a crash."""

    def __init__(
        self,
        epochs: EpochRunner,
        *,
        hyperparameters: Hyperparameters,
        folder: Path,
        group: ProcessGroup,
        identity: str,
        progress: Progress,
    ) -> None:
        self._epochs, self._learner = epochs, epochs.learner
        self._hyperparameters, self._progress = hyperparameters, progress
        self._folder, self._group, self._identity = folder, group, identity
        self._history: list[EpochMetrics] = []
        self._best: dict[str, Tensor] = {}

    def run(self, on_epoch: Callable[[EpochMetrics], None] | None) -> TrainingResult:
        """Go on from the checkpoint, if there is one, to the end."""
        self._resume()
        total = self._hyperparameters.epochs * self._epochs.steps
        with self._progress.task("train", total=total) as task:
            task.advance(len(self._history) * self._epochs.steps)
            for metrics in chain(tuple(self._history), self._remaining(task)):
                if on_epoch:
                    on_epoch(metrics)
        return self._result()

    def _remaining(self, task: Task) -> Iterator[EpochMetrics]:
        """Train epoch by epoch; each is on the disk before it is yielded."""
        while len(self._history) < self._hyperparameters.epochs and not self._is_exhausted():
            metrics = self._epochs.run(len(self._history) + 1, task=task)
            self._history.append(metrics)
            if self._best_epoch() == metrics.epoch:
                self._best = self._learner.weights()
            self._save()
            self._progress.message(
                metrics.headline(
                    epochs=self._hyperparameters.epochs,
                    objective=self._hyperparameters.objective,
                )
            )
            yield metrics

    def _resume(self) -> None:
        try:
            checkpoint = self._checkpoint()
        except BrokenCheckpointError as error:
            self._progress.message(f"the checkpoint is damaged ({error}): training starts anew")
            return
        if checkpoint is None:
            return
        self._learner.restore(
            model=checkpoint.model, optimizer=checkpoint.optimizer, scaler=checkpoint.scaler
        )
        self._history = list(checkpoint.history)
        self._best = dict(checkpoint.best or checkpoint.model)
        self._progress.message(f"going on after epoch {len(self._history)}, from the checkpoint")

    def _checkpoint(self) -> Checkpoint | None:
        """The first process's: another host may have none, or an older one."""
        folder = self._folder / CHECKPOINT_FOLDER
        if self._group.hosts == 1:
            return read_checkpoint(folder, identity=self._identity)
        file = folder / CHECKPOINT_FILE
        content = self._group.from_first(file.read_bytes() if file.exists() else b"")
        with TemporaryDirectory() as scratch:
            if content:
                Path(scratch, CHECKPOINT_FILE).write_bytes(content)
            return read_checkpoint(Path(scratch), identity=self._identity)

    def _save(self) -> None:
        if not self._group.is_first:
            return
        is_best = self._best_epoch() == len(self._history)
        checkpoint = Checkpoint(
            identity=self._identity,
            history=self._history,
            model=self._best if is_best else self._learner.weights(),
            optimizer=self._learner.optimizer_state(),
            best={} if is_best else self._best,
            scaler=self._learner.scaler_state(),
        )
        write_checkpoint(checkpoint, folder=self._folder / CHECKPOINT_FOLDER)
        path = self._folder / HISTORY_FILE
        with disk_errors(path):
            write_history(path, self._history, objective=self._hyperparameters.objective)

    def _result(self) -> TrainingResult:
        model = self._learner.model.to("cpu").to(memory_format=torch.contiguous_format)
        model.load_state_dict(self._best)
        best = self._best_epoch()
        return TrainingResult(
            model=model.eval(),
            history=self._history,
            best_epoch=best,
            metrics=self._history[best - 1].validation,
            stopped_early=len(self._history) < self._hyperparameters.epochs,
        )

    def _best_epoch(self) -> int:
        return best_epoch(self._history, objective=self._hyperparameters.objective)

    def _is_exhausted(self) -> bool:
        return is_exhausted(
            self._history,
            objective=self._hyperparameters.objective,
            patience=self._hyperparameters.early_stopping_epochs,
        )


@contextmanager
def _own_randomness(group: ProcessGroup) -> Iterator[None]:
    """Leave torch's global generators as the caller had them."""
    with torch.random.fork_rng(devices=[group.device] if group.device.type == "cuda" else []):
        yield
