"""Seconds by phase."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from darkroom.profiling.phases import Phase


class Stopwatch:
    """Adds up how long the blocks of each phase took; a phase within a phase counts alone."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._inner = 0.0

    def start(self) -> None:
        """Begin anew."""
        self._seconds, self._inner = {}, 0.0

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        """The block's time, less that of phases within it."""
        outer, self._inner = self._inner, 0.0
        started = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - started
            self._seconds[name] = self._seconds.get(name, 0.0) + elapsed - self._inner
            self._inner = outer + elapsed

    def seconds(self) -> dict[str, float]:
        """What was measured since the start."""
        return dict(self._seconds)
