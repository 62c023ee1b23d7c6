"""A table of looks: the TensorSource behind every way of storing them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from darkroom.rules.evidence import STATISTICS, Kind, Mode, Statistics

Load = Callable[[], NDArray[Any]]
_Key = tuple[Kind, Mode, str]


@dataclass
class _Entry:
    """One tensor at one step."""

    statistics: tuple[float, ...]
    units: NDArray[Any] | None
    value: Load | None


@dataclass
class TensorTable:
    """Statistics in memory, whole tensors where they can be loaded from."""

    _entries: dict[_Key, dict[int, _Entry]] = field(default_factory=dict)

    def add(
        self,
        name: str,
        *,
        kind: Kind,
        mode: Mode,
        step: int,
        statistics: Sequence[float] = (),
        units: NDArray[Any] | None = None,
        value: Load | None = None,
    ) -> None:
        """Take in one tensor at one step of a mode; what was there for the step is replaced.

        Args:
            statistics: in the order of STATISTICS; empty: unknown.
            value: loads the whole tensor.
        """
        row = tuple(statistics) or (np.nan,) * len(STATISTICS)
        self._entries.setdefault((kind, mode, name), {})[step] = _Entry(row, units, value)

    def names(self, kind: Kind) -> Sequence[str]:
        """Tensors of a kind, in the order in which they were first seen."""
        return list(dict.fromkeys(name for of, _, name in self._entries if of == kind))

    def statistics(self, name: str, *, kind: Kind, mode: Mode = "train") -> Statistics:
        """Of one tensor, over its steps."""
        entries = sorted(self._entries.get((kind, mode, name), {}).items())
        rows = np.array([entry.statistics for _, entry in entries], dtype=np.float64)
        columns = rows.reshape(len(entries), len(STATISTICS)).T
        return Statistics(
            steps=np.array([step for step, _ in entries], dtype=np.int64),
            columns=dict(zip(STATISTICS, columns, strict=True)),
            units={
                step: entry.units.astype(np.float64)
                for step, entry in entries
                if entry.units is not None
            },
        )

    def value(
        self, name: str, *, kind: Kind, step: int, mode: Mode = "train"
    ) -> NDArray[np.generic] | None:
        """The whole tensor, if it was kept."""
        entry = self._entries.get((kind, mode, name), {}).get(step)
        return entry.value() if entry and entry.value else None
