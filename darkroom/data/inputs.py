"""From what `predict` is given on its command line to images, in that order, a few at a time."""

import io
import os
import re
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from time import monotonic
from typing import BinaryIO

import requests
from urllib3.exceptions import HTTPError, ProtocolError, ReadTimeoutError

from darkroom.base.concurrency import map_in_order
from darkroom.base.errors import DarkroomError, UserError
from darkroom.base.files import workspace
from darkroom.data.archives import (
    START_BYTES,
    ArchiveEntry,
    Meter,
    damage_explained,
    is_archive,
    is_archive_start,
    is_web_page,
    safe_entries,
)
from darkroom.data.download import decode, decoded_start, download, encoding_of
from darkroom.data.found_image import MAX_IMAGE_BYTES, FoundImage, folders_above, shown, too_large
from darkroom.data.image_folder import is_image_name
from darkroom.data.listing import IMAGE_START_BYTES, begins_like_an_image, is_hidden_name
from darkroom.images import ImageError

# --- images in archives ---
# The images of an archive, read one after the other; nothing is written anywhere.

MAX_BYTES = 50 * 2**30
MAX_FILES = 2_000_000
"""As `data.maximum_archive_bytes` and `data.maximum_files` are by default."""


def images_in_archive(path: Path, *, name: str, zip_encoding: str = "") -> Iterator[FoundImage]:
    """The images of an archive, in its order; hidden files and other files are left out.

    An archive that turns out to be damaged, hostile or beyond the limits ends with one row
    that says so, after those of the images before. So does one without images.

    Args:
        name: of the archive, in the names of the images.
        zip_encoding: as `data.zip_encoding`.
    """
    meter = Meter.of(path, maximum_bytes=MAX_BYTES, maximum_files=MAX_FILES)
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
            content = file.read(MAX_IMAGE_BYTES + 1)
    except (UserError, OSError) as error:
        message = _named(str(error), path=archive, name=name)
        return FoundImage(source, error=message, folders=folders)
    if len(content) > MAX_IMAGE_BYTES:
        return FoundImage(source, error=too_large(entry.size), folders=folders)
    return FoundImage(source, content=content, folders=folders)


def _named(message: str, *, path: Path, name: str) -> str:
    """The message with the user's name of the archive, not that of a file we keep it in."""
    return message.replace(repr(str(path)), repr(name))


# --- images from the web ---
# Images and archives from http(s) addresses.

SCHEMES = ("http://", "https://")
_CONNECT_AND_READ_SECONDS = (5, 10)
_IMAGE_SECONDS = 30
_FETCHED_CHUNK_BYTES = 1 << 16
_PEEK_BYTES = 1 << 12
_USER_INFO_ANYWHERE = re.compile(r"//[^/?#\s]*@")


def fetch(url: str) -> bytes | Path:
    """Fetch an image into memory, or an archive into the workspace; its content says which.

    An archive is fetched once: later calls find it there unless it has changed. The address
    is the user's own and may be a private one.

    Raises:
        DarkroomError: unreachable, refused, too large, or not complete in time.
    """
    try:
        content = _image(url)
    except (requests.RequestException, HTTPError, ValueError) as error:
        raise ImageError(f"cannot be fetched: {_reason(error)}") from error
    if content is None:
        return download(url, store=workspace() / "data", maximum_bytes=MAX_BYTES)
    return content


def fetch_or_say_why(url: str) -> bytes | Path | str:
    """`fetch`, or the reason why nothing came."""
    try:
        return fetch(url)
    except (DarkroomError, OSError) as error:
        return str(error)


def _image(url: str) -> bytes | None:
    """The body, or None as soon as it is seen to be an archive."""
    headers = {"Accept-Encoding": "identity"}
    with requests.get(
        url, stream=True, timeout=_CONNECT_AND_READ_SECONDS, headers=headers
    ) as response:
        response.raise_for_status()
        chunks = _in_time(_arriving(response))
        content = b""
        while len(content) < _PEEK_BYTES and (chunk := next(chunks, b"")):
            content += chunk
        # Not asked for, but sent by some servers; others only say so.
        encoding = encoding_of(response.headers)
        decoded = decoded_start(content[:_PEEK_BYTES], encoding=encoding, size=START_BYTES)
        start = content[:START_BYTES] if decoded is None else decoded
        if is_archive_start(start):
            return None
        if is_web_page(start):
            raise ImageError("a web page, not an image: give the address of the image itself")
        whole = _all(content, chunks=chunks)
        return whole if decoded is None else _decoded(whole, encoding=encoding)


def _decoded(content: bytes, *, encoding: str) -> bytes:
    whole = b""
    try:
        for chunk in decode(io.BytesIO(content), encoding=encoding):
            whole += chunk
            if len(whole) > MAX_IMAGE_BYTES:
                raise ImageError(too_large())
    except (EOFError, OSError, zlib.error) as error:
        raise ImageError(f"does not decode from {encoding!r}: {error}") from error
    return whole


def _all(content: bytes, *, chunks: Iterator[bytes]) -> bytes:
    whole = bytearray()
    for chunk in chain([content], chunks):
        whole += chunk
        if len(whole) > MAX_IMAGE_BYTES:
            raise ImageError(too_large())
    return bytes(whole)


def _arriving(response: requests.Response) -> Iterator[bytes]:
    """The body as it comes: to wait until a chunk is full would let it drip for hours."""
    while chunk := response.raw.read1(_FETCHED_CHUNK_BYTES, decode_content=False):
        yield chunk


def _in_time(chunks: Iterator[bytes]) -> Iterator[bytes]:
    started = monotonic()
    for chunk in chunks:
        yield chunk
        if monotonic() - started > _IMAGE_SECONDS:
            raise ImageError(f"not fetched within {_IMAGE_SECONDS} s")


def _reason(error: Exception) -> str:
    response = getattr(error, "response", None)
    if response is not None:
        return f"HTTP status {response.status_code}"
    if isinstance(error, requests.Timeout | ReadTimeoutError):
        return "timed out"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    if isinstance(error, ProtocolError):
        return "the connection broke off"
    return _USER_INFO_ANYWHERE.sub("//", str(error))


# --- finding images ---

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
        elif path.stat().st_size > MAX_BYTES:
            yield FoundImage(STANDARD_INPUT, error=f"larger than {MAX_BYTES:,} bytes")
        elif is_archive(path):
            yield from images_in_archive(path, name=STANDARD_INPUT, zip_encoding=zip_encoding)
        else:
            # Its bytes: the file may be gone before they are needed.
            yield from _image_of(path)


def _image_of(path: Path) -> Iterator[FoundImage]:
    size = path.stat().st_size
    if size > MAX_IMAGE_BYTES:
        yield FoundImage(STANDARD_INPUT, error=too_large(size))
    else:
        yield FoundImage(STANDARD_INPUT, content=path.read_bytes())


@contextmanager
def _kept(stream: BinaryIO) -> Iterator[Path]:
    with TemporaryDirectory(prefix="darkroom-") as folder:
        path = Path(folder) / "input"
        with path.open("wb") as file:
            while file.tell() <= MAX_BYTES and (chunk := stream.read(_CHUNK_BYTES)):
                file.write(chunk)
        yield path
