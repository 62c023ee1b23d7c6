"""Processes of jobs and endpoints, so that none outlives the emulator."""

import threading
from typing import Protocol


class Killable(Protocol):
    """Something with processes."""

    def kill(self) -> None:
        """End them at once; harmless where they have ended."""


class Processes:
    """All that runs now."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: list[Killable] = []
        self._ended = False

    def add(self, process: Killable) -> None:
        """Remember a process that was started; kill it where the emulator is ending."""
        with self._lock:
            self._running.append(process)
            ended = self._ended
        if ended:
            process.kill()

    def remove(self, process: Killable) -> None:
        """Forget a process that has ended."""
        with self._lock:
            if process in self._running:
                self._running.remove(process)

    def end(self) -> None:
        """Kill all, and all that are added later."""
        with self._lock:
            self._ended = True
            running = list(self._running)
        for process in running:
            process.kill()
