"""The shards of a data set: which image goes where, and the bytes of each.

Both follow from the data set alone, whoever packs it and when: sorted entries without owners
and times, under names that tell their content.
"""

import hashlib
import io
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from darkroom.dataset import Dataset, ImageRecord, Split
from darkroom.errors import UserError

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
            content = _content(record, root=root)
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


def _content(record: ImageRecord, *, root: Path) -> bytes | str:
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
