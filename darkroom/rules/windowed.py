"""Evidence from tensors alone, and from a part of their steps: what a smdebug trial gives."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from darkroom.rules.evidence import (
    Evidence,
    Kind,
    Mode,
    Statistics,
    StepLog,
    TensorSource,
    TrainingFacts,
)


class Windowed:
    """A TensorSource that shows some steps of another.

    Args:
        limits: first and last step that are shown, by mode; a mode that is missing has none.
    """

    def __init__(self, source: TensorSource, *, limits: Mapping[Mode, tuple[int, int]]) -> None:
        self._source, self._limits = source, limits

    def names(self, kind: Kind) -> Sequence[str]:
        """See `TensorSource`."""
        return self._source.names(kind)

    def statistics(self, name: str, *, kind: Kind, mode: Mode = "train") -> Statistics:
        """See `TensorSource`."""
        whole = self._source.statistics(name, kind=kind, mode=mode)
        first, last = self._limits.get(mode, (0, -1))
        shown = (whole.steps >= first) & (whole.steps <= last)
        return Statistics(
            steps=whole.steps[shown],
            columns={column: values[shown] for column, values in whole.columns.items()},
            units={step: rows for step, rows in whole.units.items() if first <= step <= last},
        )

    def value(
        self, name: str, *, kind: Kind, step: int, mode: Mode = "train"
    ) -> NDArray[np.generic] | None:
        """See `TensorSource`."""
        first, last = self._limits.get(mode, (0, -1))
        if not first <= step <= last:
            return None
        return self._source.value(name, kind=kind, step=step, mode=mode)


def evidence_of_tensors(tensors: TensorSource) -> Evidence:
    """What tensors say by themselves: losses as steps, classes by number, nothing of the rest."""
    return Evidence(
        facts=TrainingFacts(
            architecture="",
            classes=tuple(f"class {number}" for number in range(_classes(tensors))),
            hyperparameters={},
            steps_per_epoch=0,
            class_counts={},
            trainable={},
            expected_trainable={},
        ),
        tensors=tensors,
        steps=_steps(tensors),
    )


def _classes(tensors: TensorSource) -> int:
    """Columns of the logits; 0 where none were recorded."""
    for name in tensors.names("logits"):
        for mode in ("train", "eval"):
            for step in tensors.statistics(name, kind="logits", mode=mode).steps[:1]:
                value = tensors.value(name, kind="logits", step=int(step), mode=mode)
                if value is not None and value.ndim > 1:
                    return int(value.shape[1])
    return 0


def _steps(tensors: TensorSource) -> StepLog:
    """A step for each recorded loss."""
    losses: dict[int, float] = {}
    for name in tensors.names("loss")[:1]:
        for step in tensors.statistics(name, kind="loss").steps.tolist():
            value = tensors.value(name, kind="loss", step=step)
            losses[step] = float("nan") if value is None else float(np.asarray(value, float).mean())
    unknown = np.full(len(losses), np.nan)
    ones = np.ones(len(losses), dtype=np.int64)
    return StepLog(
        step=np.array(list(losses), dtype=np.int64),
        epoch=ones,
        started=unknown,
        loss=np.array(list(losses.values()), dtype=np.float64),
        learning_rate=unknown,
        gradient_norm=unknown,
        images=32 * ones,
        correct=0 * ones,
        seconds={},
    )
