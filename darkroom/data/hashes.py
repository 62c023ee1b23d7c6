"""SHA-256 of many files, remembered so that an unchanged file is not read again.

A file is unchanged when path, size, both times, inode and device are those it had when it was
read. Whoever gives a file another content, or its name to another file, may put back its size
and its time of modification (cp -p, touch -r, rsync -t, an unpacked archive), but not its
time of change (ctime), which the kernel alone sets; and a file that comes by its path because
a folder above it was renamed keeps its ctime, but not the inode.
"""

import hashlib
import json
import os
import re
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import BinaryIO, Self

from filelock import FileLock

from darkroom.base.concurrency import batches, map_concurrently
from darkroom.base.errors import UserError
from darkroom.base.files import write_text
from darkroom.base.progress import SILENT, Progress, Task
from darkroom.base.values import digest_of
from darkroom.config.sections import Split
from darkroom.data.dataset import Dataset

# --- digests of files ---

_THREADS = min(4, os.cpu_count() or 1)
_FILES_IN_A_BATCH = 256
_CHUNK_BYTES = 1 << 20
_SETTLED_NS = 2 * 10**9
"""A file changed more recently than this may change again within one tick of the clock, so
its hash is not remembered yet."""

_KEEP_CHANGE_TIMES = frozenset(
    [
        "apfs",
        "bcachefs",
        "btrfs",
        "ceph",
        "erofs",
        "ext2",
        "ext3",
        "ext4",
        "f2fs",
        "hfs",
        "hfsplus",
        "iso9660",
        "jfs",
        "lustre",
        "nfs",
        "nfs4",
        "overlay",
        "ramfs",
        "reiserfs",
        "rootfs",
        "squashfs",
        "tmpfs",
        "udf",
        "ufs",
        "xfs",
        "zfs",
    ]
)
"""File systems whose ctime tells of every change. FAT and exFAT have none (Linux shows the time
of modification in its place), nor have most of those by FUSE; SMB leaves it to the server."""

_MOUNTS = Path("/proc/self/mountinfo")
_ESCAPED = re.compile(r"\\([0-7]{3})")
"""A space, tab, newline or backslash of a mount point, as mountinfo writes it."""


@dataclass(frozen=True, slots=True)
class FileState:
    """A file and what tells whether it has changed."""

    path: str
    """Absolute."""
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int

    @classmethod
    def of(cls, path: Path) -> Self:
        """The state of a file now."""
        return cls._from(os.path.abspath(path), status=path.stat())

    @classmethod
    def of_open(cls, file: BinaryIO, *, path: str) -> Self:
        """The state of a file that is being read."""
        return cls._from(path, status=os.fstat(file.fileno()))

    @classmethod
    def _from(cls, path: str, *, status: os.stat_result) -> Self:
        return cls(
            path,
            size=status.st_size,
            mtime_ns=status.st_mtime_ns,
            ctime_ns=status.st_ctime_ns,
            inode=status.st_ino,
            device=status.st_dev,
        )

    @property
    def token(self) -> str:
        """All but the path, as one text."""
        return f"{self.size} {self.mtime_ns} {self.ctime_ns} {self.inode} {self.device}"


@dataclass(frozen=True, slots=True)
class HashedFile:
    """A file's hash, and what the file was when it was read."""

    state: FileState
    sha256: str
    read_ns: int
    """When the reading began."""

    @property
    def is_settled(self) -> bool:
        """Whether a later change would show in the state."""
        changed_ns = max(self.state.mtime_ns, self.state.ctime_ns)
        return changed_ns < self.read_ns - _SETTLED_NS and _keeps_change_times(
            os.path.dirname(self.state.path)
        )


class HashIndex:
    """Hashes by path and state of the file, in one SQLite file of the store.

    It is a cache: delete it, and the files are read again.

    Args:
        connection: to the SQLite file.
        fresh: nothing is taken from the index, but what is read is remembered.
    """

    def __init__(self, connection: sqlite3.Connection, *, fresh: bool = False) -> None:
        self._connection, self._fresh = connection, fresh
        with connection:
            # Its key was path, size and time of modification: other files fit it, too.
            connection.execute("DROP TABLE IF EXISTS hashes")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, state TEXT NOT NULL, "
                "sha256 TEXT NOT NULL) WITHOUT ROWID"
            )

    @classmethod
    @contextmanager
    def in_store(cls, store: Path, *, fresh: bool = False) -> Iterator[Self]:
        """The index of a store, made when missing."""
        store.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(store / "hashes.sqlite", timeout=60)) as connection:
            yield cls(connection, fresh=fresh)

    def known(self, files: Iterable[FileState]) -> dict[str, str]:
        """SHA-256 by path of the files that have not changed since they were remembered."""
        if self._fresh:
            return {}
        query = "SELECT sha256 FROM files WHERE path = ? AND state = ?"
        found = (
            (file.path, self._connection.execute(query, (file.path, file.token)).fetchone())
            for file in files
        )
        return {path: row[0] for path, row in found if row}

    def remember(self, hashed: Iterable[HashedFile]) -> None:
        """Keep hashes, except of files that changed a moment ago, or may change unseen."""
        rows = (
            (file.state.path, file.state.token, file.sha256) for file in hashed if file.is_settled
        )
        with self._connection:
            self._connection.executemany("REPLACE INTO files VALUES (?, ?, ?)", rows)


def hash_file(path: Path, *, index: HashIndex, progress: Progress = SILENT) -> str:
    """The SHA-256 of one file, from the index where that knows it."""
    absolute = os.path.abspath(path)
    return hash_files([absolute], index=index, progress=progress)[absolute]


def hash_files(
    paths: Sequence[str], *, index: HashIndex, progress: Progress = SILENT
) -> dict[str, str]:
    """SHA-256 by path of many files; only those that the index does not know are read.

    What was hashed before an interruption is remembered.

    Args:
        paths: absolute.

    Raises:
        UserError: a file cannot be read, or changes while it is read.
    """
    files = [_state_of(path) for path in paths]
    hashes = index.known(files)
    unknown = [file for file in files if file.path not in hashes]
    if unknown:
        with progress.task("Hashing", total=sum(file.size for file in unknown)) as task:
            for hashed in _hash_in_batches(unknown, task=task):
                index.remember(hashed)
                hashes.update((file.state.path, file.sha256) for file in hashed)
    return hashes


def _state_of(path: str) -> FileState:
    with _unreadable_explained(path):
        return FileState.of(Path(path))


def _hash_in_batches(files: Sequence[FileState], *, task: Task) -> Iterator[list[HashedFile]]:
    in_batches = batches(files, size=_FILES_IN_A_BATCH)
    for hashed in map_concurrently(_hash_batch, in_batches, threads=_THREADS):
        yield hashed
        task.advance(sum(file.state.size for file in hashed))


def _hash_batch(files: Sequence[FileState]) -> list[HashedFile]:
    return [_hash(file.path) for file in files]


def _hash(path: str) -> HashedFile:
    """Read a file, which has to be the same before and after."""
    read_ns = time.time_ns()
    with _unreadable_explained(path), open(path, "rb") as file:
        before = FileState.of_open(file, path=path)
        digest = hashlib.sha256()
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
        if FileState.of_open(file, path=path).token != before.token:
            raise UserError(
                f"{path!r} changed while it was read. Run the same command again once nothing "
                "writes to it any more."
            )
    return HashedFile(before, sha256=digest.hexdigest(), read_ns=read_ns)


@contextmanager
def _unreadable_explained(path: str) -> Iterator[None]:
    try:
        yield
    except (PermissionError, FileNotFoundError) as error:
        raise UserError(f"{path!r} cannot be read: {error.strerror}.") from error


@cache
def _keeps_change_times(folder: str) -> bool:
    """Whether a file in this folder cannot change without its state showing it."""
    if os.name == "nt":  # the time is that of creation there
        return False
    if not _MOUNTS.exists():  # macOS; what lies on a stick of FAT there is not known
        return True
    kind = _file_system(os.path.realpath(folder), mounts=_MOUNTS.read_text(errors="replace"))
    return kind in _KEEP_CHANGE_TIMES


def _file_system(folder: str, *, mounts: str) -> str:
    """The kind of file system that a folder lies on: that of the longest mount point above it.

    By device number it would be simpler, but btrfs and overlays give files others than mounts.
    """
    longest, kind = "", ""
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        point = _ESCAPED.sub(lambda found: chr(int(found[1], 8)), before.split(" ")[4])
        below = point if point == "/" else f"{point}/"
        # The last of several on one point is the one that is seen.
        if f"{folder}/".startswith(below) and len(point) >= len(longest):
            longest, kind = point, after.split(" ", 1)[0]
    return kind


def keep_folder(folder: Path, *, store: Path, make: Callable[[], None]) -> None:
    """Have a folder that is made once, and again where it is no longer what was made.

    Whoever unpacked an archive, and then finds another picture in the folder, would train on what
    the archive does not hold.

    Args:
        store: where hashes are remembered, and a lock is held meanwhile.
        make: makes the folder, whole or not at all; it is missing then.
    """
    lock = store / "locks" / f"{folder.name}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock), HashIndex.in_store(store) as index:
        if is_as_recorded(folder, index=index):
            return
        shutil.rmtree(folder, ignore_errors=True)
        make()
        record_content(folder, index=index)


def record_content(folder: Path, *, index: HashIndex) -> None:
    """Write down, beside a folder that was fetched or made, which files it holds."""
    write_text(record_of(folder), json.dumps(_content(folder, index=index)))


def content_digest(folder: Path, *, index: HashIndex) -> str:
    """SHA-256 over path and content of every file in a folder, wherever that lies."""
    return digest_of(_content(folder, index=index))


def _content(folder: Path, *, index: HashIndex) -> dict[str, str]:
    hashes = hash_files(_files_below(folder), index=index)
    return {os.path.relpath(path, folder): sha256 for path, sha256 in hashes.items()}


def is_as_recorded(folder: Path, *, index: HashIndex) -> bool:
    """Whether a folder is there and holds what `record_content` found in it, to the last byte."""
    try:
        recorded = json.loads(record_of(folder).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    paths = _files_below(folder)
    if {os.path.relpath(path, folder) for path in paths} != recorded.keys():
        return False
    hashes = hash_files(paths, index=index)
    return all(recorded[os.path.relpath(path, folder)] == hashes[path] for path in paths)


def record_of(folder: Path) -> Path:
    """Where it is written down which files a folder holds."""
    return folder.with_name(f"{folder.name}.sha256.json")


def _files_below(folder: Path) -> list[str]:
    top = os.path.abspath(folder)
    return sorted(os.path.join(root, name) for root, _, names in os.walk(top) for name in names)


# --- unchanged since ---
# Whether the files of a data set are still those that were hashed.
#
# A data set outlives the run that made it; its files may be tidied away, or change, meanwhile.


def difference(dataset: Dataset, *, store: Path) -> str:
    """What is no longer as the data set says, in words; empty where all is.

    Files that have not changed since their hashes were remembered are not read.

    Args:
        store: folder that remembers the hashes.
    """
    paths = [os.path.abspath(dataset.file(record)) for record in dataset.records]
    there = [os.path.isfile(path) for path in paths]
    if not all(there):
        missing = [
            one.path for one, is_there in zip(dataset.records, there, strict=True) if not is_there
        ]
        return f"{_some(missing, of=dataset)} gone"
    with HashIndex.in_store(store) as index:
        hashes = hash_files(paths, index=index)
    changed = [
        record.path
        for record, path in zip(dataset.records, paths, strict=True)
        if hashes[path] != record.sha256
    ]
    return f"{_some(changed, of=dataset)} changed" if changed else ""


def check_unchanged(dataset: Dataset, *, splits: tuple[Split, ...], store: Path) -> None:
    """Compare the images of some splits with what was ingested, before they are measured with.

    Those of a published data set were compared when they were fetched.

    Raises:
        UserError: one has changed, or is gone.
    """
    if dataset.shards:
        return
    records = tuple(record for split in splits for record in dataset.split(split))
    if found := difference(replace(dataset, records=records), store=store):
        raise UserError(
            f"{found} since it was ingested: run the same command again, to have the images "
            "ingested as they are now"
        )


def discard_copy(dataset: Dataset, *, store: Path) -> None:
    """Remove what the store holds of a source, so that it is fetched and unpacked anew.

    What lies outside of the store is the user's, and stays.
    """
    root, store = dataset.root.resolve(), store.resolve()
    if root.is_relative_to(store) and root != store:
        parts = root.relative_to(store).parts
        # unpacked/<digest>/…, published/<fingerprint>/…; digits-<version> alone.
        shutil.rmtree(store.joinpath(*parts[: 1 if len(parts) == 1 else 2]), ignore_errors=True)


def _some(paths: list[str], *, of: Dataset) -> str:
    first = f"{paths[0]!r} is" if len(paths) == 1 else f"{len(paths):,} images are"
    return f"of its {len(of.records):,} images in {str(of.root)!r}, {first}"
