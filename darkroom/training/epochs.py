"""One epoch: learn from every training image, then measure on the validation split."""

import math
import time

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from darkroom.capture.opening import Recorded
from darkroom.capture.recorder import SILENT, Recorder
from darkroom.config import Hyperparameters
from darkroom.dataset import Dataset
from darkroom.errors import DarkroomError
from darkroom.evaluation.metrics import headline_metrics
from darkroom.images import Preprocessing
from darkroom.progress import Task
from darkroom.rules.findings import Finding
from darkroom.training.batches import evaluation_batch, steps_per_epoch, training_batch
from darkroom.training.distributed import ProcessGroup
from darkroom.training.examples import Examples
from darkroom.training.history import EpochMetrics
from darkroom.training.learner import Learner
from darkroom.training.optimisation import class_weights, learning_rate_at
from darkroom.training.shares import TrainingShares

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
        shares: TrainingShares,
        group: ProcessGroup,
    ) -> None:
        self._recorder = SILENT
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
