"""Taking samples of the machine beside a training, at next to no cost."""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import nan
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Protocol, Self

import psutil

from darkroom.telemetry.recording import LineWriter

# --- containers ---
# The memory limit of the container that this process runs in: Linux' cgroups, v2 and v1.

_PERCENT = 100.0


@dataclass(frozen=True)
class ContainerMemory:
    """Memory under a limit; usage as `docker stats` has it, without inactive file cache."""

    limit: int
    """Bytes."""
    used: Path
    statistics: Path
    inactive: str
    """The name of the inactive file cache in `statistics`."""

    @classmethod
    def of_this_process(
        cls,
        *,
        below: int,
        groups: Path = Path("/sys/fs/cgroup"),
        membership: Path = Path("/proc/self/cgroup"),
    ) -> "ContainerMemory | None":
        """None where there is no limit below the machine's memory.

        Args:
            below: bytes of the machine; larger limits are none.
            groups: where cgroups are mounted.
            membership: the file that says to which of them this process belongs.
        """
        for folder, names in _folders(groups, membership=membership):
            maximum, current, inactive = names
            limit = _whole_number(folder / maximum)
            if limit is not None and 0 < limit < below:
                return cls(limit, folder / current, folder / "memory.stat", inactive)
        return None

    def percent(self) -> float:
        """Of the limit in use.

        Raises:
            OSError, ValueError: the files cannot be read.
        """
        used = int(self.used.read_text())
        for line in self.statistics.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == self.inactive:
                used -= int(value)
                break
        return _PERCENT * max(0, used) / self.limit


_V2 = ("memory.max", "memory.current", "inactive_file")
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def _folders(groups: Path, *, membership: Path) -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """Where a limit may stand: the process's group and those around it, the innermost first."""
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", maxsplit=2)
        if not controllers:
            mount, names = groups, _V2
        elif "memory" in controllers.split(","):
            mount, names = groups / "memory", _V1
        else:
            continue
        # Inside a container the path is often that outside, and only the mount is there.
        inner = mount / path.lstrip("/")
        for folder in (inner, *inner.parents):
            if not folder.is_relative_to(mount):
                break
            yield folder, names


def _whole_number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # missing, or 'max'
        return None


# --- meters ---
# What is measured of the machine at each sample, and how: CPU, memory, disk, network.
#
# Rates are those since the meter was last read, so the first reading has none.

Reading = Mapping[str, float | list[float]]


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


# --- gpus ---
# Use of NVIDIA's GPUs, as NVML tells it.


class GpuMeter:
    """Of the GPUs that this process may see. Each reading costs a few calls of NVML.

    Raises:
        Exception: there is no GPU, no driver or no NVML.
    """

    def __init__(self) -> None:
        import pynvml  # type: ignore[import-not-found,import-untyped,unused-ignore]

        self._nvml: ModuleType = pynvml
        pynvml.nvmlInit()
        self._devices = _visible_devices(pynvml, chosen=os.environ.get("CUDA_VISIBLE_DEVICES"))

    def read(self) -> Reading:
        return {
            "gpu": [_or_nan(self._use, device) for device in self._devices],
            "gpu_memory": [_or_nan(self._memory, device) for device in self._devices],
        }

    def _use(self, device: object) -> float:
        return float(self._nvml.nvmlDeviceGetUtilizationRates(device).gpu)

    def _memory(self, device: object) -> float:
        memory = self._nvml.nvmlDeviceGetMemoryInfo(device)
        return round(_PERCENT * int(memory.used) / int(memory.total), 2)


def _or_nan(measure: Callable[[object], float], device: object) -> float:
    """A part of a GPU (MIG) does not tell how busy it is."""
    try:
        return measure(device)
    except Exception:
        return nan


def _visible_devices(nvml: ModuleType, *, chosen: str | None) -> Sequence[object]:
    """Handles, in the order in which torch counts them."""
    if chosen is None:
        return [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
    devices = []
    for name in filter(None, (part.strip() for part in chosen.split(","))):
        if name.lstrip("-").isdigit():
            if int(name) < 0:  # CUDA ignores what stands behind it
                break
            devices.append(nvml.nvmlDeviceGetHandleByIndex(int(name)))
        else:
            devices.append(nvml.nvmlDeviceGetHandleByUUID(name))
    return devices


# --- processes ---
# Memory and CPU time of the training process and of its children.

_SEARCHED_EVERY = 5.0
"""Seconds: to look for children costs more than everything else in a sample together."""
_LOADER = ("pt_data_worker", "multiprocessing.spawn", "multiprocessing.forkserver")


class ProcessMeter:
    """Of this process and its children. Memory that they share counts once for each."""

    def __init__(self) -> None:
        self._own = psutil.Process()
        self._processes = {self._own.pid: self._own}
        self._loaders: set[int] = set()
        self._searched = 0.0
        self._cpu: dict[int, float] = {}
        self._at = 0.0

    def read(self) -> Reading:
        now = time.monotonic()
        if now - self._searched >= _SEARCHED_EVERY:
            self._search()
            self._searched = now
        memory, cpu = self._measure()
        values = {"process_memory": memory, "loaders": float(len(self._loaders & cpu.keys()))}
        if self._cpu and now > self._at:
            values |= self._use(cpu, seconds=now - self._at)
        self._cpu, self._at = cpu, now
        return values

    def _search(self) -> None:
        children = {child.pid: child for child in self._own.children(recursive=True)}
        known = self._processes
        new = [child for pid, child in children.items() if pid not in known]
        self._loaders |= _loaders(new, own=self._own)
        self._loaders &= children.keys()
        self._processes = {
            self._own.pid: self._own,
            **{pid: known.get(pid, child) for pid, child in children.items()},
        }

    def _measure(self) -> tuple[float, dict[int, float]]:
        """Bytes in all, and seconds of CPU time by process; those that ended are left out."""
        memory, cpu = 0.0, {}
        for pid, process in self._processes.items():
            try:
                times = process.cpu_times()
                memory += process.memory_info().rss
            except psutil.Error:
                continue
            cpu[pid] = times.user + times.system
        return memory, cpu

    def _use(self, cpu: Mapping[int, float], *, seconds: float) -> dict[str, float]:
        spent = {pid: cpu[pid] - self._cpu[pid] for pid in cpu.keys() & self._cpu.keys()}
        use = {"process_cpu": round(_PERCENT * sum(spent.values()) / seconds, 1)}
        loading = [spent[pid] for pid in self._loaders & spent.keys()]
        if loading:
            use["loader_cpu"] = round(_PERCENT * sum(loading) / seconds, 1)
        return use


def _loaders(processes: Iterable["psutil.Process"], *, own: "psutil.Process") -> set[int]:
    """Which processes load data: the workers that torch or multiprocessing started."""
    found = set()
    for process in processes:
        try:
            command = process.cmdline()
            is_fork = command == own.cmdline()
        except psutil.Error:
            continue
        if is_fork or any(name in word for word in command for name in _LOADER):
            found.add(process.pid)
    return found


# --- sampler ---

_METERS: tuple[Callable[[], Meter], ...] = (
    *(CpuMeter, MemoryMeter, ProcessMeter, DiskMeter, NetworkMeter, GpuMeter),
)
_MAX_END = 5.0
"""Seconds to wait for a sample that is being taken."""
_MIN_INTERVAL = 0.05
"""Seconds: clocks of CPU time tick every hundredth."""


class SystemSampler:
    """Appends a sample of the machine to a file, again and again while the block runs.

    Nothing that goes wrong with it reaches the block: what cannot be measured is missing
    in the sample, what cannot be written is lost.

    Args:
        path: JSON lines; those that are there stay.
        interval_ms: between two samples; SageMaker's profiler allows 100 to 60,000.
        meters: what is measured; one that cannot be made is left out.
    """

    def __init__(
        self,
        path: Path,
        *,
        interval_ms: int,
        meters: Sequence[Callable[[], Meter]] = _METERS,
    ) -> None:
        self._path, self._interval, self._makers = path, interval_ms / 1000, meters
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="system sampler", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join(timeout=_MAX_END)

    def _run(self) -> None:
        with suppress(Exception):
            meters = list(_made(self._makers))
            file = LineWriter(self._path)
            try:
                self._take_samples(meters, file=file)
            finally:
                file.close()

    def _take_samples(self, meters: Sequence[Meter], *, file: LineWriter) -> None:
        take_sample(meters)  # what rates start from
        last = due = time.monotonic()
        while not self._ended.is_set():
            # Samples that were missed, while the machine slept, are not made up for.
            due = max(due + self._interval, time.monotonic())
            self._ended.wait(due - time.monotonic())
            if (now := time.monotonic()) - last < _MIN_INTERVAL:
                return
            last = now
            with suppress(OSError):  # a full disk may have room again later
                file.write(take_sample(meters))


def take_sample(meters: Sequence[Meter]) -> dict[str, object]:
    """What can be measured now."""
    sample: dict[str, object] = {"time": round(time.time(), 3)}
    for meter in meters:
        with suppress(Exception):
            sample.update(meter.read())
    return sample


def _made(makers: Sequence[Callable[[], Meter]]) -> Iterator[Meter]:
    for make in makers:
        with suppress(Exception):
            yield make()
