"""Archives unpacked once, into a folder named by the archive's content."""

import errno
import json
import shutil
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from darkroom.errors import UserError
from darkroom.files import atomic_path
from darkroom.progress import SILENT, Progress
from darkroom.sources.archive_meter import Meter
from darkroom.sources.archives import ArchiveEntry, damage_explained, safe_entries
from darkroom.sources.hashing import HashIndex, hash_file, keep_folder
from darkroom.sources.listing import HIDDEN

_CONTENT, _LEFT_OUT = "content", "left_out.json"
_COPY_BYTES = 1 << 20
_NAME_ERRORS = frozenset(
    {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ}
)


@dataclass(frozen=True)
class Unpacked:
    """An archive's content on disk."""

    folder: Path
    left_out: Counter[str]
    """Files of the archive that were not written, by reason."""


def unpack(
    archive: Path,
    *,
    store: Path,
    maximum_bytes: int,
    maximum_files: int,
    zip_encoding: str = "",
    progress: Progress = SILENT,
) -> Unpacked:
    """Unpack an archive to `store/unpacked/<its SHA-256>`, unless it lies there already.

    What lies there is compared with what was unpacked, and unpacked again where it differs.
    Hidden and system files are passed over. Should anything be wrong, nothing is left
    behind: the folder appears whole or not at all.

    Raises:
        UserError: no archive, damaged, entries that would be written elsewhere, or beyond
            the limits (`Meter`).
    """
    with HashIndex.in_store(store) as index:
        sha256 = hash_file(archive, index=index, progress=progress)
    named = f"{sha256}-{zip_encoding}" if zip_encoding else sha256
    target = store / "unpacked" / named

    def make() -> None:
        meter = Meter.of(archive, maximum_bytes=maximum_bytes, maximum_files=maximum_files)
        with atomic_path(target) as temporary:
            entries = safe_entries(archive, meter=meter, zip_encoding=zip_encoding)
            _unpack_into(temporary, entries=entries, archive=archive, progress=progress)

    keep_folder(target, store=store, make=make)
    left_out = json.loads((target / _LEFT_OUT).read_text(encoding="utf-8"))
    return Unpacked(target / _CONTENT, Counter(left_out))


def _unpack_into(
    folder: Path, *, entries: Iterable[ArchiveEntry], archive: Path, progress: Progress
) -> None:
    content = folder / _CONTENT
    content.mkdir(parents=True)
    with progress.task(f"Unpacking {archive.name}") as task:
        left_out: Counter[str] = Counter()
        for entry in _files(entries):
            if entry.is_hidden:
                left_out[HIDDEN] += 1
            else:
                _write(entry, folder=content, archive=archive)
                task.advance()
    (folder / _LEFT_OUT).write_text(json.dumps(left_out), encoding="utf-8")


def _files(entries: Iterable[ArchiveEntry]) -> Iterable[ArchiveEntry]:
    return (entry for entry in entries if not entry.is_folder)


def _write(entry: ArchiveEntry, *, folder: Path, archive: Path) -> None:
    target = folder / entry.path
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            damage_explained(archive),
            closing(entry.open()) as source,
            target.open("xb") as file,  # names that differ in case alone may be one file here
        ):
            shutil.copyfileobj(source, file, _COPY_BYTES)
    except OSError as error:
        if error.errno not in _NAME_ERRORS:
            raise
        raise UserError(
            f"entry {entry.name!r} of archive {str(archive)!r} cannot be written: "
            f"{error.strerror}. Two entries may need the same name; pack the files again."
        ) from error
