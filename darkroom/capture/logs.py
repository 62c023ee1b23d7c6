"""The logs of steps, evaluations and epochs, written and read."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from darkroom.capture.lines import read_lines
from darkroom.profiling.phases import BETWEEN_STEPS, STEP_PHASES
from darkroom.rules.evidence import EvaluationLog, Floats, StepLog
from darkroom.training.history import EpochMetrics

M = TypeVar("M", bound=BaseModel)
L = TypeVar("L")


class _Line(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class StepLine(_Line):
    """A training step; see rules.evidence.StepLog."""

    step: int
    epoch: int
    started: float
    loss: float
    learning_rate: float
    gradient_norm: float
    images: int
    correct: int
    seconds: dict[str, float]


class EvaluationLine(_Line):
    """What surrounded the steps of an epoch; see rules.evidence.EvaluationLog."""

    epoch: int
    started: float
    seconds: dict[str, float]


def step_log(lines: Iterable[StepLine]) -> StepLog:
    """The steps in order; of a step that is there twice, the later line counts."""
    steps = _latest(lines, key=lambda line: line.step)
    column = _columns(steps)
    return StepLog(
        step=column("step").astype(np.int64),
        epoch=column("epoch").astype(np.int64),
        started=column("started"),
        loss=column("loss"),
        learning_rate=column("learning_rate"),
        gradient_norm=column("gradient_norm"),
        images=column("images").astype(np.int64),
        correct=column("correct").astype(np.int64),
        seconds=_seconds(steps, phases=STEP_PHASES),
    )


def evaluation_log(lines: Iterable[EvaluationLine]) -> EvaluationLog:
    """The epochs in order."""
    epochs = _latest(lines, key=lambda line: line.epoch)
    column = _columns(epochs)
    return EvaluationLog(
        epoch=column("epoch").astype(np.int64),
        started=column("started"),
        seconds=_seconds(epochs, phases=BETWEEN_STEPS),
    )


def read_step_log(path: Path) -> StepLog:
    """The steps that were logged; of none, where the file is missing."""
    return step_log(read_steps(path))


def read_steps(path: Path) -> Iterable[StepLine]:
    """The lines of the log, as they were written."""
    return _parsed(path, model=StepLine)


def read_evaluation_log(path: Path) -> EvaluationLog:
    """The epochs whose surroundings were logged."""
    return evaluation_log(_parsed(path, model=EvaluationLine))


def read_epochs(path: Path) -> list[EpochMetrics]:
    """The epochs' metrics, in order."""
    return _latest(_parsed(path, model=EpochMetrics), key=lambda epoch: epoch.epoch)


def _parsed(path: Path, *, model: type[M]) -> Iterable[M]:
    for values in read_lines(path):
        try:
            yield model.model_validate(values)
        except ValidationError:
            continue


def _latest(lines: Iterable[L], *, key: Callable[[L], int]) -> list[L]:
    latest = {key(line): line for line in lines}
    return [latest[number] for number in sorted(latest)]


def _columns(lines: Sequence[StepLine | EvaluationLine]) -> Callable[[str], Floats]:
    return lambda name: np.array([getattr(line, name) for line in lines], dtype=np.float64)


def _seconds(
    lines: Sequence[StepLine | EvaluationLine], *, phases: Sequence[str]
) -> Mapping[str, Any]:
    return {
        phase: np.array([line.seconds.get(phase, 0.0) for line in lines], dtype=np.float64)
        for phase in phases
    }
