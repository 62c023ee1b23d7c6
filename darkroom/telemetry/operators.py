"""Which operators took the time: a table derived from a trace of torch's profiler."""

import gzip
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from darkroom.base.files import write_text

TRACE_FILE = "trace.json.gz"
TABLE_FILE = "operators.json"
STEP_PREFIX = "step "
"""Begins the names of the ranges in a trace that are steps."""

_KEPT = 50
_OPERATOR = "cpu_op"
_STEP = "user_annotation"
_ON_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")
_MILLI = 1e3
"""Microseconds, of which traces are, in a millisecond."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class OperatorTime(_Part):
    """An operator over all recorded steps."""

    name: str
    calls: int
    self_cpu_ms: float
    """Without what it called."""
    total_cpu_ms: float
    """With what it called; calls of itself count once."""
    self_device_ms: float
    """Of the kernels that it launched itself; 0 without a GPU."""
    share: float
    """Of the time of all operators: on the device where there is one, else on the CPU."""

    @property
    def seconds(self) -> float:
        """Its own: on the device where it ran there, else on the CPU."""
        return (self.self_device_ms or self.self_cpu_ms) / _MILLI


class OperatorTable(_Part):
    """The operators that took longest, the longest first."""

    steps: int
    """How many were recorded."""
    on_device: bool
    """Whether a GPU's kernels were timed."""
    operators: tuple[OperatorTime, ...]
    """The first 50."""
    operators_in_all: int


def read_operators(folder: Path) -> OperatorTable | None:
    """The table in a profile's folder, derived from the trace the first time.

    None where nothing was recorded, or the trace is damaged.
    """
    with suppress(OSError, ValidationError):
        return OperatorTable.model_validate_json((folder / TABLE_FILE).read_bytes())
    try:
        table = operator_table(folder / TRACE_FILE)
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None
    with suppress(OSError):  # a recording may be read where it cannot be written
        write_text(folder / TABLE_FILE, table.model_dump_json(indent=1) + "\n")
    return table


def operator_table(trace: Path) -> OperatorTable:
    """Add up a trace's operators. A trace of 78,000 takes half a second.

    Raises:
        OSError, EOFError, ValueError, KeyError, TypeError: it is missing or damaged.
    """
    with gzip.open(trace, "rt", encoding="utf-8", errors="replace") as file:
        events = [event for event in json.load(file)["traceEvents"] if event.get("ph") == "X"]
    operators = [event for event in events if event.get("cat") == _OPERATOR]
    sums = _added_up(operators)
    launched = {event.get("args", {}).get("External id"): event["name"] for event in operators}
    device = [event for event in events if event.get("cat") in _ON_DEVICE]
    for event in device:
        name = launched.get(event.get("args", {}).get("External id"), event["name"])
        sums.setdefault(name, _Sum()).device += event["dur"]
    steps = sum(
        event.get("cat") == _STEP and event["name"].startswith(STEP_PREFIX) for event in events
    )
    return _table(sums, steps=steps, on_device=bool(device))


@dataclass
class _Sum:
    """Microseconds."""

    calls: int = 0
    own: float = 0.0
    total: float = 0.0
    device: float = 0.0


def _added_up(operators: Iterable[Mapping[str, Any]]) -> dict[str, _Sum]:
    """Sums by name. Those on one thread lie within each other, or side by side."""
    sums: dict[str, _Sum] = {}
    open_on: dict[object, list[tuple[str, float]]] = {}
    for event in sorted(operators, key=lambda event: (event["ts"], -event["dur"])):
        name, start, length = event["name"], event["ts"], event["dur"]
        around = open_on.setdefault(event["tid"], [])
        while around and around[-1][1] <= start:
            around.pop()
        entry = sums.setdefault(name, _Sum())
        entry.calls += 1
        entry.own += length
        if around:
            caller, end = around[-1]
            sums[caller].own -= min(length, end - start)
        if all(outer != name for outer, _ in around):
            entry.total += length
        around.append((name, start + length))
    return sums


def _table(sums: Mapping[str, _Sum], *, steps: int, on_device: bool) -> OperatorTable:
    times = {name: one.device if on_device else max(0.0, one.own) for name, one in sums.items()}
    whole = sum(times.values()) or 1.0
    ranked = sorted(sums, key=lambda name: (-times[name], name))
    return OperatorTable(
        steps=steps,
        on_device=on_device,
        operators_in_all=len(ranked),
        operators=tuple(
            OperatorTime(
                name=name,
                calls=sums[name].calls,
                self_cpu_ms=max(0.0, sums[name].own) / _MILLI,
                total_cpu_ms=sums[name].total / _MILLI,
                self_device_ms=sums[name].device / _MILLI,
                share=times[name] / whole,
            )
            for name in ranked[:_KEPT]
        ),
    )
