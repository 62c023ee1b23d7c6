"""Taking samples of the machine beside a training, at next to no cost."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from darkroom.capture.lines import LineWriter
from darkroom.profiling.gpus import GpuMeter
from darkroom.profiling.meters import CpuMeter, DiskMeter, MemoryMeter, Meter, NetworkMeter
from darkroom.profiling.processes import ProcessMeter

_METERS: tuple[Callable[[], Meter], ...] = (
    *(CpuMeter, MemoryMeter, ProcessMeter, DiskMeter, NetworkMeter, GpuMeter),
)
_LONGEST_END = 5.0
"""Seconds to wait for a sample that is being taken."""
_SHORTEST_INTERVAL = 0.05
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
        self._thread.join(timeout=_LONGEST_END)

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
            if (now := time.monotonic()) - last < _SHORTEST_INTERVAL:
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
