"""Train a classifier: epochs, validation, the best one kept, a checkpoint after each.

Augmentation, order and dropout follow from (seed, epoch), so a training that was killed
and started again ends as if nothing had happened.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn

from darkroom.capture.layout import RECORDING_FOLDER
from darkroom.capture.opening import open_recorder
from darkroom.capture.recorder import SILENT as SILENT_RECORDER
from darkroom.capture.recorder import Recorder
from darkroom.capture.stall_watch import TrainingHangs, leave_at_once
from darkroom.config import Hyperparameters
from darkroom.config.debugging import NO_DEBUGGING, Debugging
from darkroom.dataset import Dataset
from darkroom.errors import DarkroomError
from darkroom.images import Preprocessing
from darkroom.model.network import build_model, head_name
from darkroom.progress import SILENT, Progress, Task
from darkroom.rules.findings import Finding
from darkroom.training.checkpoints import training_identity
from darkroom.training.distributed import ProcessGroup, process_group
from darkroom.training.epochs import EpochRunner, TrainingStopped
from darkroom.training.examples import check_splits, load_examples, preprocessing_of
from darkroom.training.history import EpochMetrics, best_epoch, is_exhausted
from darkroom.training.kept_state import KeptState
from darkroom.training.shares import TrainingShares, check_batches
from darkroom.training.threads import compute_threads

__all__ = ["EpochMetrics", "TrainingResult", "train"]


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
    preprocessing: Preprocessing
    """What the network was trained with, and has to be served with."""
    stopped_early: bool
    stopped_by: Finding | None = None
    """What a rule found that was to stop the training."""


def train(
    dataset: Dataset,
    *,
    hyperparameters: Hyperparameters,
    folder: Path,
    cache: Path,
    held: frozenset[str] | None = None,
    on_epoch: Callable[[EpochMetrics], None] | None = None,
    debugging: Debugging = NO_DEBUGGING,
    on_finding: Callable[[Finding], None] | None = None,
    on_hang: Callable[[Finding], None] = leave_at_once,
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
        debugging: what is recorded in `folder`/recording, and how it is judged meanwhile.
        on_finding: called with what rules find while the training runs; None: `progress`
            shows it.
        on_hang: called from another thread where a rule is to end a training that hangs, and
            it cannot be interrupted; ends the process.
        progress: shows optimiser steps, and a line for each epoch.

    Raises:
        UserError: an empty split, too small a batch, weights or images that are unusable.
        DarkroomError: the loss is no longer finite, a rule fails the training or stops it
            before its first epoch has ended, or the disk is full.
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
            debugging=debugging if group.is_first else None,
            on_finding=on_finding or (lambda finding: progress.message(finding.headline)),
            on_hang=on_hang,
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
    debugging: Debugging | None,
    on_finding: Callable[[Finding], None],
    on_hang: Callable[[Finding], None],
    progress: Progress,
) -> "_Training":
    shares = TrainingShares.of(dataset, held=held, group=group)
    model = _network(dataset, hyperparameters=hyperparameters, shares=shares)
    preprocessing = preprocessing_of(hyperparameters)
    load = partial(
        load_examples,
        shares.dataset,
        preprocessing=preprocessing,
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
        preprocessing=preprocessing,
        shares=shares,
        group=group,
    )
    return _Training(
        epochs,
        hyperparameters=hyperparameters,
        kept=KeptState(
            folder,
            identity=training_identity(dataset, hyperparameters=hyperparameters),
            objective=hyperparameters.objective,
            group=group,
        ),
        group=group,
        open_recorder=partial(
            open_recorder,
            folder / RECORDING_FOLDER,
            recorded=epochs.recorded(dataset, head=head_name(model, classes=len(dataset.classes))),
            debugging=debugging,
            on_finding=on_finding,
            on_hang=on_hang,
        ),
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
        kept: KeptState,
        group: ProcessGroup,
        open_recorder: "Callable[..., AbstractContextManager[Recorder]]",
        progress: Progress,
    ) -> None:
        self._epochs, self._learner = epochs, epochs.learner
        self._open_recorder, self._recorder = open_recorder, SILENT_RECORDER
        self._stopped_by: Finding | None = None
        self._hyperparameters, self._progress = hyperparameters, progress
        self._kept, self._group = kept, group
        self._history: list[EpochMetrics] = []
        self._best: dict[str, Tensor] = {}

    def run(self, on_epoch: Callable[[EpochMetrics], None] | None) -> TrainingResult:
        """Go on from the checkpoint, if there is one, to the end."""
        self._history, self._best = self._kept.restore(self._learner, progress=self._progress)
        if self._history:
            self._progress.message(self._what_is_left())
        total = self._hyperparameters.epochs * self._epochs.steps
        with self._progress.task("train", total=total) as task:
            task.advance(len(self._history) * self._epochs.steps)
            # Closed at once where a callback ends the training, so that its recorder is too.
            with closing(self._remaining(task)) as remaining:
                for metrics in chain(tuple(self._history), remaining):
                    if on_epoch:
                        on_epoch(metrics)
        return self._result()

    def _what_is_left(self) -> str:
        if self._is_done():
            return (
                f"nothing is left to train: {len(self._history)} epochs of just this training "
                "were done before, as a trial of the search or in an earlier run"
            )
        return f"going on after epoch {len(self._history)}, from the checkpoint"

    def _remaining(self, task: Task) -> Generator[EpochMetrics]:
        """Train epoch by epoch, recorded; each is on the disk before it is yielded."""
        if self._is_done():  # a recording, if there is one, is complete
            return
        try:
            with self._open_recorder(is_resumed=bool(self._history)) as recorder:
                self._recorder = recorder
                self._epochs.record_with(recorder)
                while not self._is_done():
                    yield self._epoch(task)
                    self._obey_verdict()
        except (TrainingStopped, TrainingHangs) as stopped:
            self._stop(stopped.finding, hangs=isinstance(stopped, TrainingHangs))

    def _epoch(self, task: Task) -> EpochMetrics:
        metrics = self._epochs.run(len(self._history) + 1, task=task)
        self._history.append(metrics)
        if self._best_epoch() == metrics.epoch:
            self._best = self._learner.weights()
        with self._recorder.phase("checkpoint"):
            self._kept.save(self._learner, history=self._history, best=self._best)
        self._recorder.epoch(metrics)
        self._progress.message(
            metrics.headline(
                epochs=self._hyperparameters.epochs,
                objective=self._hyperparameters.objective,
            )
        )
        return metrics

    def _obey_verdict(self) -> None:
        """End the training in all processes, if a rule of the first one says so."""
        verdict = self._recorder.verdict()
        told = self._group.from_first(verdict.model_dump_json().encode() if verdict else b"")
        if told:
            raise TrainingStopped(Finding.model_validate_json(told))

    def _stop(self, finding: Finding, *, hangs: bool) -> None:
        """Keep the best epoch, if the rule lets us and there is one.

        Raises:
            DarkroomError: the training has failed, by the rule's action or for want of an epoch.
        """
        if finding.action == "stop" and self._is_done():
            return
        self._recorder.ended_by(finding)
        # Of several processes one cannot stop alone: the others wait for it until they fail.
        is_alone = self._group.size == 1
        if finding.action == "fail" or not self._history or (hangs and not is_alone):
            raise DarkroomError(f"the training was ended by a rule: {finding.in_words}")
        self._stopped_by = finding
        self._progress.message(
            f"stopped in epoch {len(self._history) + 1} by a rule: {finding.headline}"
        )

    def _is_done(self) -> bool:
        return len(self._history) >= self._hyperparameters.epochs or self._is_exhausted()

    def _result(self) -> TrainingResult:
        model = self._learner.model.to("cpu").to(memory_format=torch.contiguous_format)
        model.load_state_dict(self._best)
        best = self._best_epoch()
        return TrainingResult(
            model=model.eval(),
            history=self._history,
            best_epoch=best,
            metrics=self._history[best - 1].validation,
            preprocessing=self._epochs.preprocessing,
            stopped_early=len(self._history) < self._hyperparameters.epochs,
            stopped_by=self._stopped_by,
        )

    def _best_epoch(self) -> int:
        return best_epoch(self._history, objective=self._hyperparameters.objective)

    def _is_exhausted(self) -> bool:
        return is_exhausted(
            self._history,
            objective=self._hyperparameters.objective,
            patience=self._hyperparameters.early_stopping_epochs,
            warmup_epochs=self._hyperparameters.warmup_epochs,
        )


@contextmanager
def _own_randomness(group: ProcessGroup) -> Iterator[None]:
    """Leave torch's global generators as the caller had them."""
    with torch.random.fork_rng(devices=[group.device] if group.device.type == "cuda" else []):
        yield
