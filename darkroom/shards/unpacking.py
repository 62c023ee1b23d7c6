"""Shards back into image files: only those that the manifest names, each compared with it.

A folder of unpacked shards holds

    images/        the files, by their path in the data set
    images.json    their paths: a machine may have been given a part of the shards
"""

import hashlib
import json
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from darkroom.dataset import Dataset, ImageRecord
from darkroom.errors import UserError
from darkroom.files import atomic_path
from darkroom.progress import SILENT, Progress
from darkroom.sources.concurrency import map_concurrently
from darkroom.sources.entry_paths import unsafe_reason

_IMAGES, _PATHS = "images", "images.json"
_THREADS = 4
_PROBLEMS_SHOWN = 10


@dataclass(frozen=True)
class Unpacked:
    """What shards held."""

    root: Path
    """The folder that the images' paths are relative to."""
    paths: frozenset[str]


def unpack_shards(
    archives: Sequence[Path], *, dataset: Dataset, folder: Path, progress: Progress = SILENT
) -> Unpacked:
    """Unpack shards to `folder`, unless that has been done; whole or not at all.

    Args:
        archives: some or all of the data set's shards.
        dataset: what the manifest says. Its root is not used.

    Raises:
        UserError: an archive is damaged, or holds what the manifest does not name; a file
            is not what the manifest says; the manifest has paths out of the folder.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            with atomic_path(folder) as temporary:
                _unpack(archives, dataset=dataset, folder=temporary, progress=progress)
    paths = json.loads((folder / _PATHS).read_text(encoding="utf-8"))
    return Unpacked(folder / _IMAGES, frozenset(paths))


def unpacked_name(archives: Iterable[Path], *, dataset: Dataset) -> str:
    """A folder's name for what these archives hold."""
    digest = hashlib.sha256(dataset.fingerprint.encode())
    for name in sorted(archive.name for archive in archives):
        digest.update(f"{name}\n".encode())
    return digest.hexdigest()[:32]


def check_complete(
    records: Iterable[ImageRecord], *, unpacked: Unpacked, what: str, place: str
) -> None:
    """Refuse shards that lack images.

    Args:
        records: that are needed.
        what: these are, in words.
        place: where the shards came from.

    Raises:
        UserError: images are missing.
    """
    missing = [record.path for record in records if record.path not in unpacked.paths]
    if missing:
        raise UserError(
            f"the shards in {place!r} lack {len(missing):,} {what}, such as {missing[0]!r}. "
            "Were some removed? Remove the manifest, and publish the data set again."
        )


def _unpack(
    archives: Sequence[Path], *, dataset: Dataset, folder: Path, progress: Progress
) -> None:
    images = folder / _IMAGES
    images.mkdir(parents=True)
    target = _Target(images, dataset=dataset)
    with progress.task("Unpacking shards", total=len(archives)) as task:
        for _ in map_concurrently(target.unpack, archives, threads=_THREADS):
            task.advance()
    (folder / _PATHS).write_text(json.dumps(sorted(target.written)), encoding="utf-8")


class _Target:
    """The folder that several threads unpack into, one archive each."""

    def __init__(self, folder: Path, *, dataset: Dataset) -> None:
        _check_paths(dataset)
        self._folder = folder
        self._known = {record.path: record for record in dataset.records}
        self._awaited = dict(self._known)
        self.written: list[str] = []

    def unpack(self, archive: Path) -> None:
        """Write an archive's files."""
        folders: set[str] = set()
        with _damage_explained(archive), tarfile.open(archive, mode="r:") as entries:
            for entry in entries:
                record = self._record(entry, archive=archive)
                # Whoever takes a record writes it; a copy in another archive is passed over.
                if self._awaited.pop(record.path, None) is None:
                    continue
                parent = record.path.rpartition("/")[0]
                if parent not in folders:
                    (self._folder / parent).mkdir(parents=True, exist_ok=True)
                    folders.add(parent)
                content = _content(entries, entry, record=record, archive=archive)
                with open(f"{self._folder}/{record.path}", "xb") as file:
                    file.write(content)
                self.written.append(record.path)

    def _record(self, entry: tarfile.TarInfo, *, archive: Path) -> ImageRecord:
        record = self._known.get(entry.name)
        if record is None or not entry.isreg() or entry.size != record.size:
            raise UserError(
                f"entry {entry.name!r} of shard {str(archive)!r} is not in the manifest as a file "
                "of this size. Shards and manifest must be of one published data set."
            )
        return record


def _content(
    entries: tarfile.TarFile, entry: tarfile.TarInfo, *, record: ImageRecord, archive: Path
) -> bytes:
    file = entries.extractfile(entry)
    content = file.read() if file else b""
    if hashlib.sha256(content).hexdigest() != record.sha256:
        raise UserError(
            f"entry {entry.name!r} of shard {str(archive)!r} does not have the content that the "
            "manifest says. The shard is damaged: remove it, and publish the data set again."
        )
    return content


def _check_paths(dataset: Dataset) -> None:
    problems = [
        f"the manifest's path {record.path!r} {reason}"
        for record in dataset.records
        if (reason := unsafe_reason(record.path))
    ]
    if problems:
        raise UserError([*problems[:_PROBLEMS_SHOWN], "Nothing was unpacked."])


@contextmanager
def _damage_explained(archive: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError) as error:
        raise UserError(
            f"shard {str(archive)!r} is damaged: {error}. Remove it, and publish again."
        ) from error
