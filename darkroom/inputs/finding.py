"""From what `predict` is given on its command line to images, in that order, a few at a time."""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from darkroom.inputs.archived import MAXIMUM_BYTES, images_in_archive
from darkroom.inputs.fetched import SCHEMES, fetch_or_say_why
from darkroom.inputs.found import (
    MAXIMUM_IMAGE_BYTES,
    FoundImage,
    folders_above,
    shown,
    too_large,
)
from darkroom.sources.archives import is_archive
from darkroom.sources.concurrency import map_in_order
from darkroom.sources.entry_paths import (
    IMAGE_START_BYTES,
    begins_like_an_image,
    is_hidden_name,
)
from darkroom.sources.image_folder import is_image_name

STANDARD_INPUT = "-"
_USER_INFO = re.compile(r"^(https?://)[^/?#]*@", re.IGNORECASE)
"""Of a URL: a password has no place in rows. Its query may be what tells it from others."""

_FETCHED_AT_ONCE = 4
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Source:
    """One thing that was named, and the images that are known before anything is opened."""

    name: str
    images: tuple[FoundImage, ...] | None = None
    """None: an archive, a URL or standard input, which has to be opened first."""


def look_at(sources: Sequence[str]) -> list[Source]:
    """List the folders among the sources; open nothing that is not on this machine.

    Folders are walked with all below them, in sorted order; hidden files, and files that
    are no images by their extension, are left out. A link to a file is followed.
    """
    return [_look_at(source) for source in sources]


def count(sources: Sequence[Source]) -> int | None:
    """How many rows there will be; None where that is not known before all are opened."""
    known = [len(source.images) for source in sources if source.images is not None]
    return sum(known) if len(known) == len(sources) else None


def images_of(
    sources: Sequence[Source], *, zip_encoding: str = "", stdin: BinaryIO | None = None
) -> Iterator[FoundImage]:
    """The images of all sources, in their order; what cannot be used is a row with an error.

    Only a few images are held at a time. URLs are fetched a little ahead.

    Args:
        zip_encoding: of a zip's names that are not marked as UTF-8; empty: what they can only be.
        stdin: read for the source '-'; None: standard input.
    """
    opened = map_in_order(_fetched, sources, threads=_FETCHED_AT_ONCE)
    for source, content in zip(sources, opened, strict=True):
        if source.images is not None:
            yield from source.images
        elif source.name == STANDARD_INPUT:
            yield from _from_stream(stdin or sys.stdin.buffer, zip_encoding=zip_encoding)
        else:
            yield from _from_content(content, name=source.name, zip_encoding=zip_encoding)


def _look_at(name: str) -> Source:
    if name == STANDARD_INPUT or name.lower().startswith(SCHEMES):
        return Source(name)
    if not name.strip():  # as a shell's empty variable is; it would be the working folder
        return Source(name, (FoundImage(name, error="names nothing"),))
    path = Path(name).expanduser()
    try:
        if path.is_dir():
            return Source(name, _in_folder(path))
        if path.is_file() and is_archive(path):
            return Source(name)
        problem = _problem(path, name=name)
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    if problem:
        return Source(name, (FoundImage(shown(name), error=problem),))
    folder = path.absolute().parent.name
    return Source(name, (FoundImage(shown(path), content=path, folders=(folder,)),))


def _problem(path: Path, *, name: str) -> str | None:
    if path.is_file():
        return None
    if path.exists():
        return "is neither a file nor a folder"
    if "://" in name:
        return "unknown kind of address; files, folders, archives and http(s) URLs can be read"
    return "no such file or folder"


def _in_folder(folder: Path) -> tuple[FoundImage, ...]:
    problems: list[OSError] = []
    paths = sorted(_walk(folder, problems=problems))
    top = folder.resolve()
    found = [
        FoundImage(
            shown(path),
            content=path,
            folders=(*folders_above(path.relative_to(folder)), top.name),
        )
        for path in paths
    ]
    found += [
        FoundImage(shown(error.filename), error=f"cannot be read: {error.strerror}")
        for error in problems
    ]
    return tuple(found) or (FoundImage(shown(folder), error="the folder holds no images"),)


def _walk(folder: Path, *, problems: list[OSError]) -> Iterator[Path]:
    for root, folders, files in os.walk(folder, onerror=problems.append):
        folders[:] = [name for name in folders if not is_hidden_name(name)]
        for name in files:
            path = Path(root, name)
            if not is_hidden_name(name) and path.is_file() and _is_image(path):
                yield path


def _is_image(path: Path) -> bool:
    """Whether a file is taken for an image: by its name, or its content where that says nothing."""
    if is_image_name(path.name) or "." in path.name:
        return is_image_name(path.name)
    try:
        with path.open("rb") as file:
            return begins_like_an_image(file.read(IMAGE_START_BYTES))
    except OSError:
        return False


def _fetched(source: Source) -> bytes | Path | str:
    """A URL's content or an archive's path; a text says why there is none."""
    if source.images is not None or source.name == STANDARD_INPUT:
        return ""
    if source.name.lower().startswith(SCHEMES):
        return fetch_or_say_why(source.name)
    return Path(source.name).expanduser()


def _from_content(
    content: bytes | Path | str, *, name: str, zip_encoding: str
) -> Iterator[FoundImage]:
    name = _USER_INFO.sub(r"\1", name)
    if isinstance(content, Path):
        yield from images_in_archive(content, name=shown(name), zip_encoding=zip_encoding)
    elif isinstance(content, bytes):
        yield FoundImage(shown(name), content=content)
    else:
        yield FoundImage(shown(name), error=content)


def _from_stream(stream: BinaryIO, *, zip_encoding: str) -> Iterator[FoundImage]:
    """One image or one archive from a pipe, by way of a file that is gone afterwards."""
    with _kept(stream) as path:
        if path.stat().st_size == 0:
            yield FoundImage(STANDARD_INPUT, error="standard input is empty")
        elif path.stat().st_size > MAXIMUM_BYTES:
            yield FoundImage(STANDARD_INPUT, error=f"larger than {MAXIMUM_BYTES:,} bytes")
        elif is_archive(path):
            yield from images_in_archive(path, name=STANDARD_INPUT, zip_encoding=zip_encoding)
        else:
            # Its bytes: the file may be gone before they are needed.
            yield from _image_of(path)


def _image_of(path: Path) -> Iterator[FoundImage]:
    size = path.stat().st_size
    if size > MAXIMUM_IMAGE_BYTES:
        yield FoundImage(STANDARD_INPUT, error=too_large(size))
    else:
        yield FoundImage(STANDARD_INPUT, content=path.read_bytes())


@contextmanager
def _kept(stream: BinaryIO) -> Iterator[Path]:
    with TemporaryDirectory(prefix="darkroom-") as folder:
        path = Path(folder) / "input"
        with path.open("wb") as file:
            while file.tell() <= MAXIMUM_BYTES and (chunk := stream.read(_CHUNK_BYTES)):
                file.write(chunk)
        yield path
