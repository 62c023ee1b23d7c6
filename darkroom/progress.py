"""Progress of long work: a bar on a terminal, plain lines when piped.

Core functions take `progress: Progress = SILENT` and never print.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

_SECONDS_BETWEEN_LINES = 5.0


class Task(Protocol):
    """One piece of work under way."""

    def advance(self, amount: float = 1, *, detail: str = "") -> None:
        """Report `amount` more units done; `detail` is shown beside the bar."""


class Progress(Protocol):
    """Where progress is shown."""

    @contextmanager
    def task(self, description: str, *, total: float | None = None) -> Iterator[Task]:
        """Show work of `total` units (None: unknown) while the block runs."""
        yield _SilentTask()

    def message(self, text: str) -> None:
        """Show one line."""


class _SilentTask:
    def advance(self, amount: float = 1, *, detail: str = "") -> None:
        pass


class SilentProgress:
    """Shows nothing."""

    @contextmanager
    def task(self, description: str, *, total: float | None = None) -> Iterator[Task]:
        yield _SilentTask()

    def message(self, text: str) -> None:
        pass


SILENT = SilentProgress()


class _PlainTask:
    def __init__(self, description: str, *, total: float | None, stream: TextIO) -> None:
        self._description, self._total, self._stream = description, total, stream
        self._done, self._started = 0.0, time.monotonic()
        self._last_line, self._detail = self._started, ""

    def advance(self, amount: float = 1, *, detail: str = "") -> None:
        self._done += amount
        self._detail = detail or self._detail
        now = time.monotonic()
        if detail or now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            print(self._line(now), file=self._stream, flush=True)

    def close(self) -> None:
        seconds = time.monotonic() - self._started
        if seconds >= 1:
            print(f"{self._description}: done in {seconds:.1f} s", file=self._stream, flush=True)

    def _line(self, now: float) -> str:
        of_total = f"/{self._total:g}" if self._total else ""
        line = f"{self._description}: {self._done:g}{of_total}"
        if self._total and self._done:
            left = (now - self._started) / self._done * (self._total - self._done)
            line += f", {left:.0f} s left"
        return f"{line}  {self._detail}".rstrip()


class PlainProgress:
    """Lines of text, at most one every few seconds unless there is news."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @contextmanager
    def task(self, description: str, *, total: float | None = None) -> Iterator[Task]:
        task = _PlainTask(description, total=total, stream=self._stream)
        yield task
        task.close()

    def message(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


def terminal_progress() -> Progress:
    """A bar where standard error is a terminal, else plain lines there."""
    stream = sys.__stderr__ or sys.stderr
    if not stream.isatty():
        return PlainProgress(stream)
    from darkroom.progress_bar import BarProgress

    return BarProgress(stream)
