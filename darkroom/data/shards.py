"""Pack a data set into a few tar archives, which S3 handles far faster, and unpack it again."""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from darkroom.base.concurrency import map_concurrently
from darkroom.base.errors import UserError
from darkroom.base.files import atomic_path
from darkroom.base.progress import SILENT, Progress
from darkroom.config.sections import Split
from darkroom.data.dataset import Dataset, ImageRecord
from darkroom.data.listing import unsafe_reason

# --- packing ---

SHARD_BYTES = 32 * 2**20
"""Aimed at: large enough for S3's throughput, small enough to be held in memory."""
TRAIN_SHARDS = 16
"""Shards of the training images, at least: that many machines can share them out."""
_LAYOUT = 1
_TAR_BLOCK_BYTES = 512
_PROBLEMS_SHOWN = 10


@dataclass(frozen=True)
class Shard:
    """Some of a split's images."""

    name: str
    """Of the archive: the split, a number, and a digest of what is in it."""
    records: tuple[ImageRecord, ...]
    """Sorted by path."""


def plan_shards(dataset: Dataset, *, split: Split) -> list[Shard]:
    """Divide a split into shards of about the same size.

    The order is that of the images' digests, as good as a random one: each shard holds
    images of all classes, so a machine that gets some of the shards sees them all.
    """
    records = sorted(dataset.split(split), key=lambda record: (record.sha256, record.path))
    total = sum(map(_packed_bytes, records))
    wanted = max(-(-total // SHARD_BYTES), TRAIN_SHARDS if split == "train" else 1)
    parts: dict[int, list[ImageRecord]] = {}
    before = 0
    for record in records:
        parts.setdefault(before * wanted // total, []).append(record)
        before += _packed_bytes(record)
    return [_shard(part, split=split, number=number) for number, part in enumerate(parts.values())]


def pack_shard(shard: Shard, *, root: Path) -> io.BytesIO:
    """A shard's archive, in memory, read from its start.

    Args:
        root: the folder of the data set's images.

    Raises:
        UserError: files that are gone, or are not those of the data set any more.
    """
    buffer = io.BytesIO()
    problems = []
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for record in shard.records:
            content = _file_content(record, root=root)
            if isinstance(content, str):
                problems.append(content)
                continue
            entry = tarfile.TarInfo(record.path)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    if problems:
        raise UserError([*problems[:_PROBLEMS_SHOWN], _advice(len(problems), root=root)])
    buffer.seek(0)
    return buffer


def _packed_bytes(record: ImageRecord) -> int:
    """What an image takes in an archive: a header, and its content in whole blocks."""
    return _TAR_BLOCK_BYTES * (1 + -(-record.size // _TAR_BLOCK_BYTES))


def _shard(records: Iterable[ImageRecord], *, split: Split, number: int) -> Shard:
    in_order = tuple(sorted(records, key=lambda record: record.path))
    digest = hashlib.sha256(f"{_LAYOUT}\n".encode())
    for record in in_order:
        digest.update(f"{record.path}\0{record.sha256}\n".encode())
    return Shard(f"{split}-{number:05}-{digest.hexdigest()[:16]}.tar", in_order)


def _file_content(record: ImageRecord, *, root: Path) -> bytes | str:
    """A file's bytes, or what is wrong with them."""
    try:
        with open(f"{root}/{record.path}", "rb") as file:
            content = file.read()
    except OSError as error:
        return f"{record.path!r} cannot be read: {error.strerror}"
    if hashlib.sha256(content).hexdigest() != record.sha256:
        return f"{record.path!r} was changed since it was ingested"
    return content


def _advice(problems: int, *, root: Path) -> str:
    return (
        f"{problems:,} of the images in {str(root)!r} cannot be packed as they were ingested. "
        "Leave them in place while a run lasts, and start it again."
    )


# --- unpacking ---
# Shards back into image files: only those that the manifest names, each compared with it.
#
# A folder of unpacked shards holds
#
# images/        the files, by their path in the data set
# images.json    their paths: a machine may have been given a part of the shards

_IMAGES, _PATHS = "images", "images.json"
_THREADS = 4


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
                content = _entry_content(entries, entry, record=record, archive=archive)
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


def _entry_content(
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
