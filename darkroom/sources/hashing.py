"""SHA-256 of many files, remembered so that an unchanged file is not read again."""

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from darkroom.errors import UserError
from darkroom.files import sha256_of
from darkroom.progress import SILENT, Progress, Task
from darkroom.sources.concurrency import batches, map_concurrently

_THREADS = min(4, os.cpu_count() or 1)
_FILES_IN_A_BATCH = 256
_SETTLED_NS = 2 * 10**9
"""A file changed more recently than this (FAT's clock ticks in 2 s) may change again
without its time showing it, so its hash is not remembered yet."""


@dataclass(frozen=True, slots=True)
class FileState:
    """A file and what tells whether it has changed."""

    path: str
    """Absolute."""
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> Self:
        """The state of a file now."""
        status = path.stat()
        return cls(os.path.abspath(path), status.st_size, status.st_mtime_ns)


class HashIndex:
    """Hashes by path, size and time of change, in one SQLite file of the store.

    It is a cache: delete it, and the files are read again.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        connection.execute(
            "CREATE TABLE IF NOT EXISTS hashes (path TEXT PRIMARY KEY, size INTEGER NOT NULL, "
            "mtime_ns INTEGER NOT NULL, sha256 TEXT NOT NULL) WITHOUT ROWID"
        )

    @classmethod
    @contextmanager
    def in_store(cls, store: Path) -> Iterator[Self]:
        """The index of a store, made when missing."""
        store.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(store / "hashes.sqlite", timeout=60)) as connection:
            yield cls(connection)

    def known(self, files: Iterable[FileState]) -> dict[str, str]:
        """SHA-256 by path of the files that have not changed since they were remembered."""
        query = "SELECT sha256 FROM hashes WHERE path = ? AND size = ? AND mtime_ns = ?"
        found = (
            (file.path, self._connection.execute(query, _key(file)).fetchone()) for file in files
        )
        return {path: row[0] for path, row in found if row}

    def remember(self, hashes: Iterable[tuple[FileState, str]]) -> None:
        """Keep hashes, except of files that changed a moment ago."""
        settled_before = time.time_ns() - _SETTLED_NS
        rows = ((*_key(file), sha256) for file, sha256 in hashes if file.mtime_ns < settled_before)
        with self._connection:
            self._connection.executemany("REPLACE INTO hashes VALUES (?, ?, ?, ?)", rows)


def hash_file(path: Path, *, index: HashIndex, progress: Progress = SILENT) -> str:
    """The SHA-256 of one file, from the index where that knows it."""
    file = FileState.of(path)
    return hash_files([file], index=index, progress=progress)[file.path]


def hash_files(
    files: Sequence[FileState], *, index: HashIndex, progress: Progress = SILENT
) -> dict[str, str]:
    """SHA-256 by path of many files; only those that the index does not know are read.

    What was hashed before an interruption is remembered.

    Raises:
        UserError: a file cannot be read.
    """
    hashes = index.known(files)
    unknown = [file for file in files if file.path not in hashes]
    if unknown:
        with progress.task("Hashing", total=sum(file.size for file in unknown)) as task:
            for hashed in _hash_in_batches(unknown, task=task):
                index.remember(hashed)
                hashes.update((file.path, sha256) for file, sha256 in hashed)
    return hashes


def _hash_in_batches(
    files: Sequence[FileState], *, task: Task
) -> Iterator[list[tuple[FileState, str]]]:
    in_batches = batches(files, size=_FILES_IN_A_BATCH)
    for hashed in map_concurrently(_hash_batch, in_batches, threads=_THREADS):
        yield hashed
        task.advance(sum(file.size for file, _ in hashed))


def _hash_batch(files: Sequence[FileState]) -> list[tuple[FileState, str]]:
    return [(file, _hash(file)) for file in files]


def _hash(file: FileState) -> str:
    try:
        return sha256_of(Path(file.path))
    except (PermissionError, FileNotFoundError) as error:
        raise UserError(f"{file.path!r} cannot be read: {error.strerror}.") from error


def _key(file: FileState) -> tuple[str, int, int]:
    return file.path, file.size, file.mtime_ns
