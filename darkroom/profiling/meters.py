"""What is measured of the machine at each sample, and how: CPU, memory, disk, network.

Rates are those since the meter was last read, so the first reading has none.
"""

import os
import time
from collections.abc import Mapping
from typing import Protocol

import psutil

from darkroom.profiling.containers import ContainerMemory

Reading = Mapping[str, float | list[float]]

_PERCENT = 100.0


class Meter(Protocol):
    """Measures a part of the machine; may raise whatever it likes."""

    def read(self) -> Reading:
        """Columns of SystemSamples by name; what is unknown is left out."""


class CpuMeter:
    """Use of each core that this process may use, and the time spent waiting for disks."""

    def __init__(self) -> None:
        self._cores = _allowed_cores()
        self._before: list[psutil._ntp.scputimes] = []

    def read(self) -> Reading:
        now = psutil.cpu_times(percpu=True)
        cores = [
            _shares(core, earlier)
            for index, (core, earlier) in enumerate(zip(now, self._before, strict=False))
            if self._cores is None or index in self._cores
        ]
        self._before = now
        busy = [round(busy, 1) for busy, _ in cores]
        if not cores:
            return {}
        if not hasattr(now[0], "iowait"):  # macOS
            return {"cpu": busy}
        return {"cpu": busy, "io_wait": round(sum(wait for _, wait in cores) / len(cores), 2)}


class MemoryMeter:
    """Memory in use, of the container where that has a limit, else of the machine."""

    def __init__(self) -> None:
        self._container = ContainerMemory.of_this_process(below=psutil.virtual_memory().total)

    def read(self) -> Reading:
        if self._container:
            return {"memory": round(self._container.percent(), 2)}
        memory = psutil.virtual_memory()
        return {"memory": round(_PERCENT * (1 - memory.available / memory.total), 2)}


class DiskMeter:
    """Bytes read and written by the whole machine."""

    def __init__(self) -> None:
        self._rates = _Rates()

    def read(self) -> Reading:
        counters = psutil.disk_io_counters(nowrap=False)
        if counters is None:
            return {}
        return self._rates.since(disk_read=counters.read_bytes, disk_write=counters.write_bytes)


class NetworkMeter:
    """Bytes that came and went, the machine's talk with itself left out."""

    def __init__(self) -> None:
        self._rates = _Rates()

    def read(self) -> Reading:
        cards = psutil.net_io_counters(pernic=True, nowrap=False)
        outside = [card for name, card in cards.items() if not name.startswith("lo")]
        return self._rates.since(
            network_in=sum(card.bytes_recv for card in outside),
            network_out=sum(card.bytes_sent for card in outside),
        )


class _Rates:
    """Differences of counters over the time between."""

    def __init__(self) -> None:
        self._before: dict[str, int] = {}
        self._at = 0.0

    def since(self, **counters: int) -> Reading:
        now = time.monotonic()
        seconds, before = now - self._at, self._before
        self._before, self._at = counters, now
        if not before or seconds <= 0:
            return {}
        # A counter that fell has been reset.
        return {name: max(0, count - before[name]) // seconds for name, count in counters.items()}


def _shares(now: "psutil._ntp.scputimes", before: "psutil._ntp.scputimes") -> tuple[float, float]:
    """Percent of a core's time that it was busy, and that it waited for disks."""
    passed = {
        name: max(0.0, getattr(now, name) - getattr(before, name))
        for name in now._fields
        if not name.startswith("guest")  # within user and nice
    }
    whole = sum(passed.values())
    if whole <= 0:
        return 0.0, 0.0
    wait = passed.get("iowait", 0.0)
    return _PERCENT * (1 - (passed["idle"] + wait) / whole), _PERCENT * wait / whole


def _allowed_cores() -> frozenset[int] | None:
    """None: all, or unknown (macOS)."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return None
