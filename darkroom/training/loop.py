"""Train a classifier: epochs, validation, the best one kept, a checkpoint after each.

Augmentation, order and dropout follow from (seed, epoch), so a training that was killed
and started again ends as if nothing had happened.
"""

import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from darkroom.base.errors import DarkroomError
from darkroom.base.progress import SILENT, Progress, Task
from darkroom.config import Hyperparameters
from darkroom.config.debugging import NO_DEBUGGING, Debugging
from darkroom.data.dataset import Dataset
from darkroom.debugging.recording.live import TrainingHangs, leave_at_once
from darkroom.debugging.recording.recorder import SILENT as SILENT_RECORDER
from darkroom.debugging.recording.recorder import Recorded, Recorder, open_recorder
from darkroom.evaluation.metrics import headline_metrics
from darkroom.images import Preprocessing
from darkroom.models.network import build_model, head_name
from darkroom.telemetry.epochs import EpochMetrics, best_epoch, is_exhausted
from darkroom.telemetry.findings import Finding
from darkroom.telemetry.recording import RECORDING_FOLDER
from darkroom.training.batches import (
    DistributedSampler,
    check_batches,
    evaluation_batch,
    steps_per_epoch,
    training_batch,
)
from darkroom.training.checkpoint_manager import CheckpointManager
from darkroom.training.checkpoints import training_identity
from darkroom.training.distributed import ProcessGroup, process_group
from darkroom.training.examples import Examples, check_splits, load_examples, preprocessing_of
from darkroom.training.learner import Learner, class_weights, compute_threads, learning_rate_at

__all__ = ["EpochMetrics", "TrainingResult", "train"]


# --- epochs ---
# One epoch: learn from every training image, then measure on the validation split.

_VALIDATION_BATCH = 64


class TrainingStopped(Exception):  # noqa: N818 - no error: a rule was asked to do this
    """A rule whose action is to stop or to fail the training has found something."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.title)
        self.finding = finding


class EpochRunner:
    """Feeds a network that learns."""

    def __init__(
        self,
        model: nn.Module,
        *,
        train: Examples,
        validation: Examples,
        classes: int,
        hyperparameters: Hyperparameters,
        preprocessing: Preprocessing,
        shares: DistributedSampler,
        group: ProcessGroup,
    ) -> None:
        self._recorder = SILENT_RECORDER
        self._train, self._validation = train, validation
        self._shares, self._labels = shares, shares.labels
        self._hyperparameters, self._group = hyperparameters, group
        self.preprocessing = preprocessing
        self._unreported_seconds = train.seconds
        self.learner = Learner(
            model,
            hyperparameters=hyperparameters,
            preprocessing=preprocessing,
            class_weights=class_weights(
                self._labels,
                classes=classes,
                weighted=hyperparameters.imbalance == "class_weights",
            ),
            group=group,
        )
        self.steps = steps_per_epoch(len(self._labels), batch_size=hyperparameters.batch_size)

    def record_with(self, recorder: Recorder) -> None:
        """Tell a recorder of everything from now on."""
        self._recorder = self.learner.recorder = recorder

    def recorded(self, dataset: Dataset, *, head: str) -> Recorded:
        """What a recording of this training is of."""
        return Recorded(
            model=self.learner.model,
            hyperparameters=self._hyperparameters,
            classes=dataset.classes,
            train_labels=self._train.labels,
            validation_labels=self._validation.labels,
            train_paths=[record.path for record in self._shares.dataset.split("train")],
            head=head,
            steps_per_epoch=self.steps,
            processes=self._group.size,
        )

    def run(self, epoch: int, *, task: Task) -> EpochMetrics:
        """Train and validate; `task` advances by one a step.

        Raises:
            DarkroomError: the loss is no longer finite.
            TrainingStopped: a rule ends the training.
        """
        started = time.perf_counter()
        torch.manual_seed(self._seed(epoch))
        loss, accuracy = self._learn(epoch, task=task)
        # The decoding of all images belongs to the first epoch that needed it.
        training_seconds = time.perf_counter() - started + self._unreported_seconds
        validation = self._validate(epoch)
        seconds = time.perf_counter() - started + self._unreported_seconds
        self._unreported_seconds = 0.0
        return EpochMetrics(
            epoch=epoch,
            learning_rate=self._learning_rate(epoch * self.steps - 1),
            train_loss=loss,
            train_accuracy=accuracy,
            validation=validation,
            images_per_second=len(self._labels) / training_seconds,
            seconds=seconds,
        )

    def _learn(self, epoch: int, *, task: Task) -> tuple[float, float]:
        """Mean loss and accuracy over the epoch, of all processes."""
        share = self._shares.epoch(epoch, hyperparameters=self._hyperparameters)
        self.learner.start_epoch()
        loss = correct = 0.0
        for step, (positions, own) in enumerate(zip(share.batches, share.own, strict=True)):
            number = (epoch - 1) * self.steps + step
            rate = self._learning_rate(number)
            with self._recorder.step(number, epoch=epoch, learning_rate=rate):
                with self._recorder.phase("data_wait"):
                    pixels = self._pixels(own, draws=share.draws[step])
                result = self.learner.step(
                    pixels,
                    torch.from_numpy(self._train.labels[own]),
                    positions=own,
                    batch_labels=torch.from_numpy(self._labels[positions]),
                    learning_rate=rate,
                )
            if not math.isfinite(result.loss):
                raise self._diverged(epoch, f"in step {step + 1} of {self.steps}")
            # Several processes can only stop together, after an epoch.
            if self._group.size == 1 and (verdict := self._recorder.verdict()):
                raise TrainingStopped(verdict)
            loss += result.loss * len(positions)
            correct += result.correct
            task.advance()
        totals = self._group.sum(torch.tensor([loss, correct], dtype=torch.float64))
        loss, correct = (totals / len(self._labels)).tolist()
        return loss, correct

    def _pixels(self, own: NDArray[np.int64], *, draws: NDArray[np.float64]) -> Tensor:
        """This process's part of a batch."""
        size = self.preprocessing.image_size
        if self._hyperparameters.augmentation == "none":
            return evaluation_batch(self._train.cache, own, size=size)
        return training_batch(
            self._train.cache,
            own,
            draws=draws,
            size=size,
            flip=self._hyperparameters.augmentation == "crop_flip",
        )

    def _validate(self, epoch: int) -> dict[str, float]:
        """Headline metrics; each process predicts its share of the images."""
        self._group.synchronise_buffers(self.learner.model)
        labels = self._validation.labels
        share = self._group.share(np.arange(len(labels)))
        with self._recorder.evaluation(epoch):
            logits = self.learner.logits(
                evaluation_batch(
                    self._validation.cache,
                    share[start : start + _VALIDATION_BATCH],
                    size=self.preprocessing.image_size,
                )
                for start in range(0, len(share), _VALIDATION_BATCH)
            )
            self._recorder.evaluated(logits=logits, labels=labels[share])
        own = logits.softmax(dim=1)
        probabilities = torch.zeros((len(labels), own.shape[1]))
        probabilities[share] = own
        probabilities = self._group.sum(probabilities)
        if not probabilities.isfinite().all():
            raise self._diverged(epoch, "on the validation images")
        return headline_metrics(labels, probabilities.numpy())

    def _learning_rate(self, step: int) -> float:
        return learning_rate_at(
            step, steps_per_epoch=self.steps, hyperparameters=self._hyperparameters
        )

    def _seed(self, epoch: int) -> int:
        """Of dropout, which differs between processes as their images do."""
        entropy = (self._hyperparameters.seed, epoch, self._group.rank)
        return int(np.random.SeedSequence(entropy).generate_state(1)[0])

    def _diverged(self, epoch: int, where: str) -> DarkroomError:
        advice = f"lower training.learning_rate (now {self._hyperparameters.learning_rate:g})"
        if not self._hyperparameters.gradient_clip:
            advice += ", or clip the gradient (training.gradient_clip: 1)"
        return DarkroomError(
            f"the training diverged: the loss is not finite in epoch {epoch}, {where}; "
            f"{advice}, lengthen training.warmup_epochs, or set training.mixed_precision to 'off'"
        )


# --- loop ---


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
    shares = DistributedSampler.of(dataset, held=held, group=group)
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
        kept=CheckpointManager(
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
    dataset: Dataset, *, hyperparameters: Hyperparameters, shares: DistributedSampler
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
        kept: CheckpointManager,
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
