"""A source on this machine or the web, looked at or brought into a local folder."""

import os
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from darkroom.config import DataConfig
from darkroom.errors import UserError
from darkroom.progress import SILENT, Progress
from darkroom.sources.archive_meter import Meter
from darkroom.sources.archives import is_archive, list_archive, safe_entries
from darkroom.sources.digits import write_digits
from darkroom.sources.label_files import may_be_labels
from darkroom.sources.listing import Listing, list_folder
from darkroom.sources.source_names import ALLOWED, Source


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

    Raises:
        UserError: it is missing, unreachable, or refused.
    """
    if source.kind == "digits":
        return LocalFolder(write_digits(store))
    if source.kind == "http":
        from darkroom.sources.download import download

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
    """A local folder as it is, or an archive's content, unpacked in the store.

    Raises:
        UserError: it is missing, or an archive that is refused.
    """
    if path.is_dir():
        return LocalFolder(path.resolve())
    from darkroom.sources.unpacking import unpack

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
