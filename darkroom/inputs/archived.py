"""The images of an archive, read one after the other; nothing is written anywhere."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path, PurePosixPath

from darkroom.errors import UserError
from darkroom.inputs.found import (
    MAXIMUM_IMAGE_BYTES,
    FoundImage,
    folders_above,
    shown,
    too_large,
)
from darkroom.sources.archive_meter import Meter
from darkroom.sources.archives import ArchiveEntry, damage_explained, safe_entries
from darkroom.sources.image_folder import is_image_name

MAXIMUM_BYTES = 50 * 2**30
MAXIMUM_FILES = 2_000_000
"""As `data.maximum_archive_bytes` and `data.maximum_files` are by default."""


def images_in_archive(path: Path, *, name: str, zip_encoding: str = "") -> Iterator[FoundImage]:
    """The images of an archive, in its order; hidden files and other files are left out.

    An archive that turns out to be damaged, hostile or beyond the limits ends with one row
    that says so, after those of the images before. So does one without images.

    Args:
        name: of the archive, in the names of the images.
        zip_encoding: as `data.zip_encoding`.
    """
    meter = Meter.of(path, maximum_bytes=MAXIMUM_BYTES, maximum_files=MAXIMUM_FILES)
    images = 0
    try:
        for entry in safe_entries(path, meter=meter, zip_encoding=zip_encoding):
            if not entry.is_folder and not entry.is_hidden and is_image_name(entry.path):
                images += 1
                yield _read(entry, archive=path, name=name)
    except (UserError, OSError) as error:
        yield FoundImage(name, error=_named(str(error), path=path, name=name))
        return
    if not images:
        yield FoundImage(name, error="the archive holds no images")


def _read(entry: ArchiveEntry, *, archive: Path, name: str) -> FoundImage:
    inner = PurePosixPath(entry.path)
    source, folders = f"{name}/{shown(inner)}", folders_above(inner)
    try:
        with damage_explained(archive), closing(entry.open()) as file:
            content = file.read(MAXIMUM_IMAGE_BYTES + 1)
    except (UserError, OSError) as error:
        message = _named(str(error), path=archive, name=name)
        return FoundImage(source, error=message, folders=folders)
    if len(content) > MAXIMUM_IMAGE_BYTES:
        return FoundImage(source, error=too_large(entry.size), folders=folders)
    return FoundImage(source, content=content, folders=folders)


def _named(message: str, *, path: Path, name: str) -> str:
    """The message with the user's name of the archive, not that of a file we keep it in."""
    return message.replace(repr(str(path)), repr(name))
