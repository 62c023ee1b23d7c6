"""One process at a time at the same work; the others wait, and say for whom.

The lock is the system's (flock): it ends with its process, however that ends.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from darkroom.files import write_text
from darkroom.progress import SILENT, Progress

_SECONDS_BETWEEN_TRIES = 0.25


@dataclass(frozen=True)
class Holder:
    """A process that holds a lock."""

    pid: int
    """0: not known yet."""
    name: str
    """Such as that of its run; empty: it has none."""

    @property
    def in_words(self) -> str:
        """For people who wait for it."""
        who = f"process {self.pid}" if self.pid else "another process"
        return f"run {self.name} ({who})" if self.name else who


@contextmanager
def alone(path: Path, *, doing: str, name: str = "", progress: Progress = SILENT) -> Iterator[bool]:
    """Hold the lock `path` while the block runs; wait while another process does.

    Args:
        doing: the work, as it is told of the process that is waited for: 'trains the same'.
        name: by which others may know this process, such as that of its run.

    Yields:
        Whether another process was waited for.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock, record = FileLock(path), path.with_suffix(".json")
    waited = False
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waited = True
        progress.message(f"{_read(record).in_words} {doing}: waiting for it to end …")
        lock.acquire(poll_interval=_SECONDS_BETWEEN_TRIES)
    try:
        write_text(record, json.dumps({"pid": os.getpid(), "name": name}), durable=False)
        yield waited
    finally:
        with suppress(OSError):
            record.unlink()
        lock.release()


def holder_of(path: Path) -> Holder | None:
    """Who holds the lock; None where no living process does. Nothing is waited for."""
    if not path.exists():
        return None
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return _read(path.with_suffix(".json"))
    lock.release()
    return None


def _read(record: Path) -> Holder:
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
        return Holder(int(found["pid"]), name=str(found["name"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Holder(0, name="")  # it has just begun, or just ended
