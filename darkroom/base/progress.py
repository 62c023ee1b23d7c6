"""Progress of long work: a bar on a terminal, plain lines when piped.

Core functions take `progress: Progress = SILENT` and never print.
"""

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

_SECONDS_BETWEEN_LINES = 5.0
_SECONDS_OF_SPEED = 60.0
_SECONDS_OF_TAKING_UP = 0.05
_MIN_SEEN = 3
_BYTES_RATHER = 10_000_000
"""A larger total is of bytes, which nobody counts."""
_ROUNDING = 1e-6
"""Ten tenths of a trial are one."""


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


class TimeLeft:
    """How long the rest of some work takes, at the speed of its last minute.

    Between two advances it falls with the clock. What is done before the work begins, as of an
    interrupted training that is taken up again, says nothing of the speed.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen = deque([(clock(), 0.0)])

    def note(self, done: float) -> None:
        """So much is done by now."""
        now, (first, _) = self._clock(), self._seen[0]
        if len(self._seen) == 1 and now - first < _SECONDS_OF_TAKING_UP:
            self._seen.clear()
        elif done == self._seen[-1][1]:
            return
        self._seen.append((now, done))
        while len(self._seen) > _MIN_SEEN and now - self._seen[0][0] > _SECONDS_OF_SPEED:
            self._seen.popleft()

    def seconds(self, total: float | None) -> float | None:
        """None: nobody knows yet."""
        (first, before), (last, done) = self._seen[0], self._seen[-1]
        if not total or last <= first or done <= before:
            return None
        left = (total - done) * (last - first) / (done - before)
        return max(0.0, left - (self._clock() - last))


def counted(done: float, *, total: float | None) -> str:
    """'3/40' of what can be counted, a percentage of bytes; '' where the total is unknown."""
    if not total:
        return f"{int(done):,}" if done else ""
    if total >= _BYTES_RATHER:
        return f"{done / total:.0%}"
    return f"{int(done + _ROUNDING):,}/{int(total):,}"


class _PlainTask:
    def __init__(self, description: str, *, total: float | None, stream: TextIO) -> None:
        self._description, self._total, self._stream = description, total, stream
        self._done, self._started = 0.0, time.monotonic()
        self._left = TimeLeft()
        self._last_line, self._detail = self._started, ""

    def advance(self, amount: float = 1, *, detail: str = "") -> None:
        self._done += amount
        self._left.note(self._done)
        self._detail = detail or self._detail
        now = time.monotonic()
        if detail or now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            print(self._line(), file=self._stream, flush=True)

    def close(self) -> None:
        seconds = time.monotonic() - self._started
        if seconds >= 1:
            print(f"{self._description}: done in {seconds:.1f} s", file=self._stream, flush=True)

    def _line(self) -> str:
        line = f"{self._description}: {counted(self._done, total=self._total)}".removesuffix(": ")
        left = self._left.seconds(self._total)
        if left is not None and self._total and self._done < self._total:
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
    """A bar where standard error is a terminal that can move its cursor, else plain lines there."""
    stream = sys.__stderr__ or sys.stderr
    if not stream.isatty() or os.environ.get("TERM", "") in ("dumb", "unknown"):
        return PlainProgress(stream)
    from darkroom.base.progress_bar import BarProgress

    return BarProgress(stream)
