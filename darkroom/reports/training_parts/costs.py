"""Operators, and what the profiler's advice would save."""

from dataclasses import dataclass
from typing import Protocol

from darkroom.profiling.operators_table import OperatorTable

_MOST_OPERATORS = 20


class Advice(Protocol):
    """What the page needs to know of a line of advice."""

    @property
    def advice(self) -> str: ...
    @property
    def seconds(self) -> float:
        """That it would save of a training like this one."""
        ...

    @property
    def dollars(self) -> float | None:
        """The same; None: no price is known."""
        ...

    @property
    def basis(self) -> str:
        """How that was measured or estimated."""
        ...

    @property
    def estimated(self) -> bool: ...


@dataclass(frozen=True)
class OperatorRow:
    """An operator in a profiled step."""

    name: str
    calls: float
    own_ms: float
    """Without what it called."""
    total_ms: float
    """With what it called, on the CPU."""
    share: float
    """Of the time of all operators."""


def operator_rows(table: OperatorTable | None) -> list[OperatorRow]:
    """Those that took longest, the longest first."""
    if table is None:
        return []
    steps = max(1, table.steps)
    return [
        OperatorRow(
            one.name,
            calls=one.calls / steps,
            own_ms=1e3 * one.seconds / steps,
            total_ms=one.total_cpu_ms / steps,
            share=one.share,
        )
        for one in table.operators[:_MOST_OPERATORS]
    ]


def operators_note(table: OperatorTable | None) -> str:
    """Of what the rows are a part."""
    if table is None:
        return ""
    place = "on the GPU" if table.on_device else "on the CPU"
    shown = min(_MOST_OPERATORS, len(table.operators))
    return (
        f"The {shown} of {table.operators_in_all} operators that took longest {place}, in a step; "
        f"mean of {table.steps} profiled steps. Own time is without what an operator calls."
    )
