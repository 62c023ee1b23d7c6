"""Tensors in memory: for tests, and for judging a training while it runs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from darkroom.telemetry.evidence import STATISTICS, Kind, Mode, Statistics
from darkroom.telemetry.tensors import TensorTable, tensor_statistics, unit_shares


class MemorySource:
    """A TensorSource to which arrays are added, step by step.

    Args:
        keep: whether whole tensors are kept, beside their statistics. Those of logits and
            labels always are, and the last of each other tensor, to compare the next with.
    """

    def __init__(self, *, keep: bool = True) -> None:
        self._table = TensorTable()
        self._keep = keep
        self._last: dict[tuple[Kind, Mode, str], NDArray[Any]] = {}

    def add(
        self,
        name: str,
        *,
        kind: Kind,
        step: int,
        array: NDArray[Any],
        mode: Mode = "train",
        units: NDArray[Any] | None = None,
    ) -> None:
        """Take in a tensor at a step, later than those that are there.

        Args:
            units: see `Statistics.units`; those of an activation (n, C, …) are computed.
        """
        array = np.array(array)
        key = (kind, mode, name)
        statistics = tensor_statistics(array, previous=self._last.get(key))
        self._last[key] = array
        if units is None and kind == "activation" and array.ndim > 1:
            units = unit_shares(array)
        self._table.add(
            name,
            kind=kind,
            mode=mode,
            step=step,
            statistics=[statistics[column] for column in STATISTICS],
            units=units,
            value=(lambda: array) if self._keep or kind in ("logits", "labels") else None,
        )

    def names(self, kind: Kind) -> Sequence[str]:
        """See `TensorSource`."""
        return self._table.names(kind)

    def statistics(self, name: str, *, kind: Kind, mode: Mode = "train") -> Statistics:
        """See `TensorSource`."""
        return self._table.statistics(name, kind=kind, mode=mode)

    def value(
        self, name: str, *, kind: Kind, step: int, mode: Mode = "train"
    ) -> NDArray[np.generic] | None:
        """See `TensorSource`."""
        return self._table.value(name, kind=kind, step=step, mode=mode)
