"""The recorder that writes a recording's folder; see darkroom.debugging.recording for its parts."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from math import nan
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from darkroom.base.files import write_text
from darkroom.config.debugging import RecordingConfig
from darkroom.debugging.profiling.operators import OperatorProfiler
from darkroom.debugging.recording.live import LiveJudge
from darkroom.debugging.recording.logs import EvaluationLine, MarginMeter, StepLine
from darkroom.debugging.recording.snapshots import (
    Captured,
    Look,
    ParameterWatch,
    measure_activations,
    watching_activations,
)
from darkroom.telemetry.epochs import EpochMetrics
from darkroom.telemetry.findings import Finding
from darkroom.telemetry.recording import LineWriter, Phase, RecordingFolder

# --- background writes ---
# Where looks into the network are stored.


class TensorWriter(Protocol):
    """Stores looks so that a killed training leaves every finished one readable."""

    def write(self, look: Look) -> None:
        """Store one look; one of the same mode and step replaces an earlier one."""

    def close(self) -> None:
        """Finish what is pending."""


# --- schedule ---
# At which training steps the network is looked into.

_LOOKS_PER_EPOCH = 4
_MIN_STEPS = 25


@dataclass(frozen=True)
class Schedule:
    """Which steps are looked into, and of which the loss is kept as a tensor."""

    every: int
    first: int
    losses_every: int

    @classmethod
    def of(cls, config: RecordingConfig, *, steps_per_epoch: int) -> "Schedule":
        """What the configuration asks for; it leaves the interval to us by 0."""
        automatic = max(_MIN_STEPS, -(-steps_per_epoch // _LOOKS_PER_EPOCH))
        return cls(
            every=config.every_steps or automatic,
            first=config.first_steps,
            losses_every=config.losses_every_steps,
        )

    def is_look(self, step: int) -> bool:
        """Whether the network is looked into at a step, counted from 0."""
        return step < self.first or step % self.every == 0

    def is_loss(self, step: int) -> bool:
        """Whether the step's loss is kept as a tensor."""
        return step % self.losses_every == 0 or self.is_look(step)


# --- stopwatch ---
# Seconds by phase.


class Stopwatch:
    """Adds up how long the blocks of each phase took; a phase within a phase counts alone."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._inner = 0.0

    def start(self) -> None:
        """Begin anew."""
        self._seconds, self._inner = {}, 0.0

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        """The block's time, less that of phases within it."""
        outer, self._inner = self._inner, 0.0
        started = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - started
            self._seconds[name] = self._seconds.get(name, 0.0) + elapsed - self._inner
            self._inner = outer + elapsed

    def seconds(self) -> dict[str, float]:
        """What was measured since the start."""
        return dict(self._seconds)


# --- folder recorder ---

_MAX_EVALUATED = 10_000
"""Validation images whose logits are kept."""


class FolderRecorder:
    """Writes what the training loop tells.

    Args:
        model: the network; its parameters are measured at each look.
        schedule: at which steps it is looked into.
        writer: where the looks go.
        margins: adds up how each training image is seen.
        full: whether looks keep whole tensors.
        judge: judges while the training runs.
        profiler: times the operators of the first steps.
    """

    def __init__(
        self,
        folder: RecordingFolder,
        *,
        model: nn.Module,
        schedule: Schedule,
        writer: TensorWriter,
        margins: MarginMeter,
        full: bool,
        judge: LiveJudge | None,
        profiler: OperatorProfiler,
    ) -> None:
        self._folder, self._schedule, self._writer = folder, schedule, writer
        self._margins, self._full = margins, full
        self._judge, self._profiler = judge, profiler
        self._parameters = ParameterWatch(model)
        self._steps = LineWriter(folder.steps)
        self._evaluations = LineWriter(folder.evaluations)
        self._epochs = LineWriter(folder.epochs)
        self._watch = Stopwatch()
        self._look: Look | None = None
        self._line = _no_line()
        self._is_looked_into = False
        self._evaluation_started = 0.0

    def phase(self, name: Phase) -> AbstractContextManager[None]:
        return self._watch.phase(name)

    @contextmanager
    def step(self, number: int, *, epoch: int, learning_rate: float) -> Iterator[None]:
        looked = self._schedule.is_look(number)
        keeps = looked or self._schedule.is_loss(number)
        self._look = Look("train", number, full=self._full) if keeps else None
        self._is_looked_into = looked
        self._profiler.start()
        self._watch.start()
        self._line = _no_line(number, epoch=epoch, learning_rate=learning_rate)
        try:
            yield
        except BaseException:  # an interruption above all: half a step is none
            self._look = None
            raise
        with self.phase("recording"):
            self._profiler.step()
            self._store_look()
        line = self._line.model_copy(update={"seconds": self._watch.seconds()})
        self._steps.write(line.model_dump())
        if self._judge:
            self._judge.step(line)
            self._judge.after_step(looked)

    @contextmanager
    def forward(self, model: nn.Module) -> Iterator[None]:
        if self._look is None or not self._is_looked_into:
            yield
            return
        with watching_activations(model) as passed:
            yield
        with self.phase("recording"):
            measure_activations(self._look, passed)

    def outcome(
        self,
        positions: NDArray[np.int64],
        *,
        images: Tensor,
        logits: Tensor,
        labels: Tensor,
        loss: float,
        correct: int,
    ) -> None:
        """See `Recorder`.

        Args:
            positions: where the margins of these images are added up.
            images: kept where this step's layers are looked into, as statistics or whole.
            logits: kept whole, with the labels, at every step that is looked at.
            loss: goes into the log of steps, as `correct` and the number of images do.
        """
        with self.phase("recording"), torch.no_grad():
            self._margins.add(positions, logits=logits, labels=labels)
            self._line = self._line.model_copy(
                update={"loss": loss, "images": len(labels), "correct": correct}
            )
            if self._look is not None:
                self._add_outcome(self._look, images=images, logits=logits, labels=labels)

    def gradients(self) -> None:
        if self._look is not None and self._is_looked_into:
            with self.phase("recording"), torch.no_grad():
                self._parameters.look(self._look, gradients=True)

    def gradient_norm(self, norm: float) -> None:
        self._line = self._line.model_copy(update={"gradient_norm": norm})

    def dissect(self, model: nn.Module, *, images: Tensor) -> None:
        """Look at everything once more: the step that fails is rarely one that was due."""
        with self.phase("recording"), torch.no_grad():
            number = self._line.step
            look = Look("train", number, full=self._full)
            look.tensors = [*self._look.tensors] if self._look else []
            if not any(one.kind == "input" for one in look.tensors):
                _add_input(look, images=images)
            has_activations = any(one.kind == "activation" for one in look.tensors)
            if not has_activations:
                with watching_activations(model) as passed:
                    model(images)
                measure_activations(look, passed)
            self._parameters.look(look, gradients=False)
            self._look = look

    @contextmanager
    def evaluation(self, epoch: int) -> Iterator[None]:
        self._watch.start()
        self._evaluation_started = time.time()
        self._look = Look("eval", epoch - 1, full=self._full)
        self._is_looked_into = True
        with self.phase("evaluation"):
            yield
        with self.phase("recording"):
            self._store_look()
        self._is_looked_into = False

    def evaluated(self, *, logits: Tensor, labels: NDArray[np.int64]) -> None:
        if self._look is None:
            return
        rows = slice(None, _MAX_EVALUATED)
        self._add_scores(self._look, logits=logits[rows], labels=torch.from_numpy(labels[rows]))

    def epoch(self, metrics: EpochMetrics) -> None:
        seconds = self._watch.seconds()
        line = EvaluationLine(
            epoch=metrics.epoch, started=self._evaluation_started, seconds=seconds
        )
        self._evaluations.write(line.model_dump())
        self._epochs.write(metrics.model_dump())
        self._margins.save(self._folder.margins)
        if self._judge:
            self._judge.epoch(metrics)

    def verdict(self) -> Finding | None:
        return self._judge.verdict if self._judge else None

    def ended_by(self, finding: Finding) -> None:
        write_text(self._folder.ended_by, finding.model_dump_json(indent=1))

    def close(self) -> None:
        """Finish the files; what was recorded is complete."""
        self._profiler.stop()
        self._writer.close()
        for file in (self._steps, self._evaluations, self._epochs):
            file.close()

    def _add_outcome(self, look: Look, *, images: Tensor, logits: Tensor, labels: Tensor) -> None:
        if self._is_looked_into:
            _add_input(look, images=images)
        self._add_scores(look, logits=logits, labels=labels)
        look.tensors.append(_scalar("loss", self._line.loss))

    def _add_scores(self, look: Look, *, logits: Tensor, labels: Tensor) -> None:
        look.add("logits", kind="logits", tensor=logits, whole=True)
        look.tensors.append(
            Captured("labels", kind="labels", value=labels.detach().cpu().numpy().copy())
        )

    def _store_look(self) -> None:
        if self._look is not None and self._look.tensors:
            self._writer.write(self._look)
            if self._judge:
                self._judge.look(self._look)
        self._look = None


def _add_input(look: Look, *, images: Tensor) -> None:
    look.add("input", kind="input", tensor=images, units=images.detach().float().mean(dim=(2, 3)))


def _scalar(name: str, value: float) -> Captured:
    return Captured(name, kind="loss", value=np.array(value, dtype=np.float64))


def _no_line(step: int = 0, *, epoch: int = 0, learning_rate: float = 0.0) -> StepLine:
    """A step of which nothing is known yet."""
    return StepLine(
        step=step,
        epoch=epoch,
        started=time.time(),
        loss=nan,
        learning_rate=learning_rate,
        gradient_norm=nan,
        images=0,
        correct=0,
        seconds={},
    )
