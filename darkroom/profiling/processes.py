"""Memory and CPU time of the training process and of its children."""

import time
from collections.abc import Iterable, Mapping

import psutil

from darkroom.profiling.meters import Reading

_SEARCHED_EVERY = 5.0
"""Seconds: to look for children costs more than everything else in a sample together."""
_PERCENT = 100.0
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
