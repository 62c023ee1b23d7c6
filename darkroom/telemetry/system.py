"""Samples of the machine while it trains, as they are read; sampler.py takes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from darkroom.telemetry.evidence import Floats
from darkroom.telemetry.recording import read_lines

# --- system ---

_TIME = "time"
_BY_SAMPLE = (
    *(_TIME, "io_wait", "memory", "process_memory", "process_cpu", "loader_cpu", "loaders"),
    *("disk_read", "disk_write", "network_in", "network_out"),
)
_BY_DEVICE = ("cpu", "gpu", "gpu_memory")


@dataclass(frozen=True)
class SystemSamples:
    """The machine over time: arrays of the same length n; without samples, n = 0.

    NaN where something could not be measured; the first sample of a start has no rates.
    """

    time: Floats
    """(n,) seconds since 1970."""
    cpu: Floats
    """(n, cores) percent; of the cores that the process may use."""
    io_wait: Floats
    """(n,) percent of all cores' time."""
    memory: Floats
    """(n,) percent of the machine's (or container's) memory in use."""
    process_memory: Floats
    """(n,) bytes resident in the training process and its children."""
    process_cpu: Floats
    """(n,) percent of one core, by the training process and its children."""
    loader_cpu: Floats
    """(n,) percent of one core, by data loading workers; NaN where there are none."""
    disk_read: Floats
    """(n,) bytes per second."""
    disk_write: Floats
    network_in: Floats
    network_out: Floats
    gpu: Floats
    """(n, GPUs) percent busy."""
    gpu_memory: Floats
    """(n, GPUs) percent of the GPU's memory in use."""
    loaders: Floats = field(default_factory=lambda: np.zeros(0))
    """(n,) data loading workers; empty where that is unknown."""

    def __len__(self) -> int:
        return len(self.time)


def read_samples(path: Path) -> SystemSamples:
    """The samples in a file, in the order of time.

    A line that a killed training left unfinished is left out; a resumed training has
    appended its own. Without a file there are no samples.
    """
    lines = [line for line in read_lines(path) if isinstance(line.get(_TIME), int | float)]
    lines.sort(key=lambda line: _number(line[_TIME]))
    columns = {name: np.array([_number(line.get(name)) for line in lines]) for name in _BY_SAMPLE}
    tables = {name: _table(lines, name=name) for name in _BY_DEVICE}
    return SystemSamples(**columns, **tables)


def _table(lines: Sequence[Mapping[str, object]], *, name: str) -> Floats:
    """(n, devices); NaN where a sample has fewer devices than another."""
    rows = [_numbers(line.get(name)) for line in lines]
    table = np.full((len(rows), max(map(len, rows), default=0)), np.nan)
    for index, row in enumerate(rows):
        table[index, : len(row)] = row
    return table


def _numbers(values: object) -> list[float]:
    return [_number(value) for value in values] if isinstance(values, list) else []


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else np.nan


# --- reporting ---


@dataclass(frozen=True)
class TrainingPrices:
    """What machines to train on cost."""

    instance_type: str | None = None
    """That was used; None: one of no price."""
    usd_per_hour: Mapping[str, float] = field(default_factory=dict)
    """By instance type."""
