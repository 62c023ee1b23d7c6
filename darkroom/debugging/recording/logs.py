"""The logs of steps, evaluations and epochs, written and read."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from darkroom.base.files import atomic_path
from darkroom.telemetry.epochs import EpochMetrics
from darkroom.telemetry.evidence import EvaluationLog, Floats, ImageMargins, StepLog
from darkroom.telemetry.recording import BETWEEN_STEPS, STEP_PHASES, read_lines

if TYPE_CHECKING:
    from torch import Tensor


# --- margins ---
# How the network sees each training image over the epochs, for label-noise suspects.
#
# Pleiss et al., Identifying mislabeled data using the area under the margin ranking, NeurIPS
# 2020: the mean, over the epochs, of the label's logit less the largest other one.


class MarginMeter:
    """Adds up margins, batch by batch.

    Args:
        labels: (N,) class indices of all training images.
    """

    def __init__(self, labels: NDArray[np.int64]) -> None:
        self._labels = labels
        self._sum: NDArray[Any] = np.zeros(len(labels), dtype=np.float64)
        self._count: NDArray[Any] = np.zeros(len(labels), dtype=np.int64)
        self._other: NDArray[Any] = np.full(len(labels), -1, dtype=np.int64)

    def add(self, positions: NDArray[np.int64], *, logits: "Tensor", labels: "Tensor") -> None:
        """Take note of (n, C) logits of the images at (n,) positions with (n,) labels."""
        scores = logits.detach().float()
        own = scores.gather(1, labels[:, None])[:, 0]
        others = scores.scatter(1, labels[:, None], -inf).max(dim=1)
        margins = (own - others.values).cpu().numpy()
        usable = np.isfinite(margins)
        np.add.at(self._sum, positions[usable], margins[usable])
        np.add.at(self._count, positions[usable], 1)
        self._other[positions] = others.indices.cpu().numpy()

    def margins(self, paths: Sequence[str]) -> ImageMargins:
        """What there is so far."""
        return _margins(self._sum, self._count, labels=self._labels, other=self._other, paths=paths)

    def save(self, path: Path) -> None:
        """Write the sums, atomically."""
        with atomic_path(path, durable=False) as temporary, temporary.open("wb") as file:
            np.savez(file, sum=self._sum, count=self._count, other=self._other, labels=self._labels)

    def restore(self, path: Path) -> None:
        """Go on from a file of `save`, if it is of these images."""
        arrays = _arrays(path)
        if arrays is not None and np.array_equal(arrays["labels"], self._labels):
            self._sum, self._count = arrays["sum"], arrays["count"]
            self._other = arrays["other"]


def read_margins(path: Path, *, paths: Sequence[str]) -> ImageMargins | None:
    """The margins that were saved; None where there are none."""
    arrays = _arrays(path)
    if arrays is None or len(arrays["labels"]) != len(paths):
        return None
    return _margins(
        arrays["sum"],
        arrays["count"],
        labels=arrays["labels"],
        other=arrays["other"],
        paths=paths,
    )


def _arrays(path: Path) -> dict[str, NDArray[Any]] | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in ("sum", "count", "other", "labels")}
    except (OSError, ValueError, KeyError):
        return None


def _margins(
    total: NDArray[Any],
    count: NDArray[Any],
    *,
    labels: NDArray[Any],
    other: NDArray[Any],
    paths: Sequence[str],
) -> ImageMargins:
    seen = count > 0
    mean = np.full(len(total), np.nan)
    mean[seen] = total[seen] / count[seen]
    return ImageMargins(margin=mean, label=labels, predicted=other, paths=paths)


# --- logs ---

M = TypeVar("M", bound=BaseModel)
L = TypeVar("L")


class _Line(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class StepLine(_Line):
    """A training step; see telemetry.evidence.StepLog."""

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
    """What surrounded the steps of an epoch; see telemetry.evidence.EvaluationLog."""

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
