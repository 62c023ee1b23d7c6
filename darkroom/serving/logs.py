"""Log lines of a server: one JSON object, or one line of text, for each event.

    {"time": "2026-11-26T21:00:00.123Z", "event": "request", "status": 200, "ms": 4.1, …}

Neither bodies nor queries, names of files or addresses that images were fetched from are
written: a log is no place for what users send.
"""

import io
import json
import os
import select
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Literal, TextIO

LogFormat = Literal["json", "text", "none"]

UNREAD_CHARACTERS = 2**20
"""That are kept while nobody reads what a server writes: some 5,000 requests."""

_SECONDS_TO_END = 1.0


class EventLog:
    """Writes events to a stream.

    Args:
        kind: "none" writes nothing.
    """

    def __init__(self, kind: LogFormat, *, stream: TextIO | None = None) -> None:
        self.kind = kind
        self._stream = stream

    def write(self, event: str, **fields: object) -> None:
        """One event."""
        if self.kind == "none":
            return
        print(self.line(event, **fields), end="", file=self._stream or sys.stdout, flush=True)

    def line(self, event: str, **fields: object) -> str:
        """An event as a line."""
        moment = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        if self.kind == "json":
            return json.dumps({"time": moment, "event": event, **fields}, default=str) + "\n"
        return f"{moment} {event} {_pairs(fields)}".rstrip() + "\n"


class UnreadStream(io.TextIOBase):
    """A stream that nobody may be reading: writing to it never waits, and never fails.

    A thread hands on what is written. What is not taken is kept up to a limit, and dropped
    beyond it; once somebody reads again, a line says how many are missing.

    Args:
        descriptor: of a pipe, a terminal, a file.
        missing: the line that says how many are.
        most: characters that are kept.
    """

    def __init__(
        self, descriptor: int, *, missing: Callable[[int], str], most: int = UNREAD_CHARACTERS
    ) -> None:
        self._descriptor = descriptor
        self._missing = missing
        self._most = most
        self._waiting: list[str] = []
        self._size = 0  # of what waits, and of what the thread is writing
        self._untold = 0
        self._is_ending = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._hand_on, name="log", daemon=True)
        self._thread.start()
        self.dropped = 0
        """Lines, so far."""

    def write(self, text: str) -> int:
        """Take a text, or drop it; whole lines, where they are to stay whole."""
        with self._changed:
            if self._size and self._size + len(text) > self._most:
                self._drop(text)
            else:
                if self._untold:
                    self._waiting.append(self._missing(self._untold))
                    self._untold = 0
                self._waiting.append(text)
                self._size += len(text)
                self._changed.notify()
        return len(text)

    def close(self) -> None:
        """Hand on what is left, for a second at most."""
        with self._changed:
            self._is_ending = True
            self._changed.notify()
        self._thread.join(_SECONDS_TO_END)
        super().close()

    def _hand_on(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_ending)
                texts, self._waiting = self._waiting, []
            if not texts:
                return
            text = "".join(texts)
            try:
                _write_all(self._descriptor, text.encode(errors="backslashreplace"))
            except OSError:  # the reader is gone, the terminal is closed, the disk is full
                with self._changed:
                    self._drop(text)
            with self._changed:
                self._size = sum(map(len, self._waiting))

    def _drop(self, text: str) -> None:
        self._untold += text.count("\n")
        self.dropped += text.count("\n")


@contextmanager
def unread_output(log: EventLog) -> Iterator[Callable[[], int]]:
    """While the block runs, what this process writes to stdout and stderr keeps it from nothing.

    Yields:
        Tells how many lines were dropped.
    """
    before = sys.stdout, sys.stderr
    streams = list[UnreadStream]()
    for stream in before:
        stream.flush()
        streams.append(
            UnreadStream(
                stream.fileno(),
                missing=lambda lines: log.line("log_lines_dropped", lines=lines),
            )
        )
    sys.stdout, sys.stderr = streams
    try:
        yield lambda: sum(stream.dropped for stream in streams)
    finally:
        sys.stdout, sys.stderr = before
        for stream in streams:
            stream.close()


def write_if_read(descriptor: int, text: str) -> None:
    """Write a short text, unless that would have to wait for a reader."""
    with suppress(OSError):
        if select.select([], [descriptor], [], 0)[1]:  # then a pipe takes a page at least
            os.write(descriptor, text.encode(errors="backslashreplace")[: select.PIPE_BUF])


def _write_all(descriptor: int, content: bytes) -> None:
    while content:
        try:
            content = content[os.write(descriptor, content) :]
        except BlockingIOError:  # whoever has it too, has made it so
            select.select([], [descriptor], [])


def _pairs(fields: Mapping[str, object]) -> str:
    return " ".join(f"{name}={_shown(value)}" for name, value in fields.items())


def _shown(value: object) -> str:
    text = str(value)
    return text if text.isprintable() and " " not in text and text else repr(text)
