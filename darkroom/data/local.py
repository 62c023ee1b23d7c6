"""A source on this machine or the web, looked at or brought into a local folder."""

import errno
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path

from PIL import Image

from darkroom.base.errors import UserError
from darkroom.base.files import atomic_path
from darkroom.base.progress import SILENT, Progress
from darkroom.config import DataConfig
from darkroom.data.archives import (
    ArchiveEntry,
    Meter,
    damage_explained,
    is_archive,
    list_archive,
    safe_entries,
)
from darkroom.data.hashes import HashIndex, hash_file, keep_folder
from darkroom.data.label_files import may_be_labels
from darkroom.data.listing import HIDDEN, Listing, list_folder
from darkroom.data.source_names import ALLOWED, Source

# --- digits ---
# The embedded default: scikit-learn's 1,797 handwritten digits as a folder of PNG files.

_MAX_VALUE = 16


def digits_version() -> str:
    """What changes when the digits might: the version of scikit-learn."""
    return version("scikit-learn")


def write_digits(store: Path) -> Path:
    """The folder `store/digits-<version>` with `<0…9>/NNNN.png`, written when missing or changed.

    Images are 8×8 pixels, 8-bit grey; scikit-learn's values 0…16 become 0…255. NNNN is
    the position in scikit-learn's order.
    """
    folder = store / f"digits-{digits_version()}"

    def make() -> None:
        with atomic_path(folder) as temporary:
            _write_images(temporary)

    keep_folder(folder, store=store, make=make)
    return folder


def _write_images(folder: Path) -> None:
    from sklearn.datasets import load_digits  # takes seconds to import

    digits = load_digits()
    for label in range(10):
        (folder / str(label)).mkdir(parents=True)
    scaled = (digits.images * (255 / _MAX_VALUE)).round().astype("uint8")
    for position, (pixels, label) in enumerate(zip(scaled, digits.target, strict=True)):
        Image.fromarray(pixels).save(folder / str(label) / f"{position:04d}.png")


# --- unpacked archives ---
# Archives unpacked once, into a folder named by the archive's content.

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

    Args:
        store: the base folder, which also keeps the hashes of archives.
        maximum_bytes: of all files together, unpacked.
        maximum_files: entries of any kind.
        zip_encoding: of a zip's names that are not marked as UTF-8, such as cp932; added to the
            folder's name. Empty: found out.
        progress: tells of hashing and unpacking.

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


# --- local ---


@dataclass(frozen=True)
class LocalFolder:
    """A source's files, where they can be read."""

    root: Path
    left_out: Counter[str] = field(default_factory=Counter)
    """What the source held and the folder does not, by reason."""


def fetch(
    source: Source, *, config: DataConfig, store: Path, progress: Progress = SILENT
) -> LocalFolder:
    """Bring a source other than S3 into a local folder. A local folder stays where it is.

    Args:
        source: the digits that come with scikit-learn, an http(s) address, or a path.
        config: the limits of archives, and the encoding of a zip's names.
        store: the base folder, where downloads and unpacked archives stay for the next time.

    Raises:
        UserError: it is missing, unreachable, or refused.
    """
    if source.kind == "digits":
        return LocalFolder(write_digits(store))
    if source.kind == "http":
        from darkroom.data.download import download

        archive = download(
            source.location,
            store=store,
            maximum_bytes=config.maximum_archive_bytes,
            progress=progress,
        )
        return open_path(archive, config=config, store=store, progress=progress)
    path = Path(source.location).expanduser()
    return open_path(path, config=config, store=store, progress=progress)


def open_path(
    path: Path, *, config: DataConfig, store: Path, progress: Progress = SILENT
) -> LocalFolder:
    """A local folder as it is, or the folder with an archive's content, unpacked in the store.

    Args:
        config: the limits of archives, and the encoding of a zip's names.
        store: the base folder, below which archives are unpacked.

    Raises:
        UserError: it is missing, or an archive that is refused.
    """
    if path.is_dir():
        return LocalFolder(path.resolve())

    unpacked = unpack(
        existing(path),
        store=store,
        maximum_bytes=config.maximum_archive_bytes,
        maximum_files=config.maximum_files,
        zip_encoding=config.zip_encoding,
        progress=progress,
    )
    return LocalFolder(unpacked.folder, unpacked.left_out)


def list_path(path: Path, *, config: DataConfig) -> Listing:
    """The files of a local folder or archive; nothing is unpacked.

    Raises:
        UserError: it is missing, unreadable, or an archive that is refused.
    """
    if path.is_dir():
        return list_folder(path, maximum_files=config.maximum_files)
    return list_archive(
        existing(path),
        maximum_bytes=config.maximum_archive_bytes,
        maximum_files=config.maximum_files,
        zip_encoding=config.zip_encoding,
    )


def read_in_archive(path: Path, *, config: DataConfig) -> Callable[[str], bytes]:
    """A function that gives the content of a table or text of an archive, by its path there.

    The archive is read through once, at the first call: what may be a label file is kept.
    """

    @cache
    def contents() -> dict[str, bytes]:
        meter = Meter.of(
            path, maximum_bytes=config.maximum_archive_bytes, maximum_files=config.maximum_files
        )
        kept: dict[str, bytes] = {}
        for entry in safe_entries(path, meter=meter, zip_encoding=config.zip_encoding):
            if not entry.is_folder and may_be_labels(entry.path, size=entry.size):
                with closing(entry.open()) as file:
                    kept[entry.path] = file.read()
        return kept

    return lambda name: contents()[name]


def check_archive(path: Path) -> None:
    """Make sure that there is an archive.

    Raises:
        UserError: it is missing, or no archive.
    """
    if not is_archive(existing(path)):
        raise UserError(f"{str(path)!r} is neither a folder nor an archive. Give {ALLOWED}.")


def existing(path: Path) -> Path:
    """A path at which there is a folder or a file that may be read.

    Raises:
        UserError: there is neither.
    """
    if path.is_dir():
        return path
    if not path.exists():
        raise UserError(f"data source {str(path)!r} does not exist. Give {ALLOWED}.")
    if not path.is_file():
        raise UserError(f"{str(path)!r} is neither a folder nor a file. Give {ALLOWED}.")
    if not os.access(path, os.R_OK):
        raise UserError(f"{str(path)!r} may not be read. Change its permissions.")
    return path
