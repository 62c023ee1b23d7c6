"""One process at a time at the same work; the others wait, and say for whom.

The lock is the system's (flock): it ends with its process, however that ends.

    <folder>/locks/use-….lock      held by each process that works in the folder
    <folder>/locks/alone.lock      held by one that wants the folder to itself

Whoever works holds the first, then waits for the second; whoever wants the folder to itself holds
the second, then looks for the first: so one of the two always sees the other.
"""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from darkroom.base.files import write_text
from darkroom.base.progress import SILENT, Progress

_SECONDS_BETWEEN_TRIES = 0.25
_PATIENCE_SECONDS = 0.5
"""Somebody may be looking whether a lock is held: that is over in a moment, and not told."""
_USES = "use-*"


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
        lock.acquire(timeout=_PATIENCE_SECONDS)
    except Timeout:
        waited = True
        progress.message(f"{_read(record).in_words} {doing}: waiting for it to end …")
        lock.acquire(poll_interval=_SECONDS_BETWEEN_TRIES)
    try:
        _write(record, name=name)
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


@dataclass(frozen=True)
class Use:
    """That this process works in a folder."""

    record: Path

    def has_name(self, name: str) -> None:
        """Tell others, and whoever comes after a crash, which run this is."""
        _write(self.record, name=name)


@contextmanager
def in_use(folder: Path, *, progress: Progress = SILENT) -> Iterator[Use]:
    """Keep others from taking a folder to themselves; wait while one has it."""
    path = folder / "locks" / f"use-{os.getpid()}-{secrets.token_hex(4)}.lock"
    try:
        with alone(path, doing=""):
            with to_itself(folder, progress=progress):
                pass  # the next one finds this process at work
            yield Use(path.with_suffix(".json"))
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def to_itself(folder: Path, *, progress: Progress = SILENT) -> Iterator[None]:
    """Let nobody begin to work in a folder; `users_of` tells who does already."""
    lock = folder / "locks" / "alone.lock"
    with alone(lock, doing="removes what no run needs", progress=progress):
        yield


def users_of(folder: Path) -> list[Holder]:
    """The processes that work in a folder."""
    locks = (folder / "locks").glob(f"{_USES}.lock")
    return [holder for holder in map(holder_of, locks) if holder]


def killed_in(folder: Path) -> dict[Path, Holder]:
    """Processes that worked in a folder and ended without a word, by the record that is left."""
    records = sorted((folder / "locks").glob(f"{_USES}.json"))
    return {
        record: _read(record)
        for record in records
        if holder_of(record.with_suffix(".lock")) is None and record.exists()
    }


def forget(record: Path) -> None:
    """Remove what is left of a process that was killed."""
    record.unlink(missing_ok=True)
    record.with_suffix(".lock").unlink(missing_ok=True)


def _write(record: Path, *, name: str) -> None:
    write_text(record, json.dumps({"pid": os.getpid(), "name": name}), durable=False)


def _read(record: Path) -> Holder:
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
        return Holder(int(found["pid"]), name=str(found["name"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Holder(0, name="")  # it has just begun, or just ended
