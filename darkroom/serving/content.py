"""Read images from a request's body, by its content type: binary, npy, multipart, JSON."""

import asyncio
import binascii
import io
import json
import re
import reprlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from darkroom.models.engine import Floats
from darkroom.serving.limits import MAX_IMAGES, MAX_URL, refused, too_many_images, unsupported

# --- npy ---
# NumPy's .npy format, read without ever unpickling and without trusting the header's sizes.

_MAX_HEADER = 4096
_READERS: dict[tuple[int, int], Callable[..., tuple[tuple[int, ...], bool, np.dtype[Any]]]] = {
    (1, 0): npy_format.read_array_header_1_0,
    (2, 0): npy_format.read_array_header_2_0,
}
_TYPES = ("float32", "float64", "float16")

_MAX_VALUE = 1000.0
"""Normalised pixels lie within ±3. What makes a network overflow would fail the requests of
others in the same batch."""


def read_images(body: bytes, *, image_size: int) -> Floats:
    """Preprocessed images of the body, (N, 3, S, S) or one (3, S, S), as float32.

    Raises:
        HTTPException: 400 where it is anything else, 413 for too many images.
    """
    array = _read(body)
    wanted = (3, image_size, image_size)
    if array.ndim not in (3, 4) or array.shape[-3:] != wanted:
        raise refused(
            f"the array's shape is {array.shape}; accepted are (N, 3, {image_size}, "
            f"{image_size}) and {wanted}: preprocessed images"
        )
    if array.ndim == 4 and not 1 <= len(array) <= MAX_IMAGES:
        raise too_many_images(len(array)) if len(array) else refused("the array holds no image")
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is refused
        images = np.ascontiguousarray(array, dtype=np.float32)
    if not np.isfinite(images).all():
        raise refused("the array holds values that are not finite")
    if np.abs(images).max() > _MAX_VALUE:
        raise refused(f"the array holds values beyond ±{_MAX_VALUE:g}, which no pixel has")
    return images


def write(array: Floats) -> bytes:
    """The array as a .npy file."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def _read(body: bytes) -> NDArray[np.floating]:
    stream = io.BytesIO(body)
    try:
        version = npy_format.read_magic(stream)  # type: ignore[no-untyped-call]
        shape, is_fortran, dtype = _READERS[version](stream, max_header_size=_MAX_HEADER)
    except Exception as error:  # NumPy parses the header as Python: whatever that may raise
        raise refused("the body is no .npy file of NumPy's format 1.0 or 2.0") from error
    if dtype.newbyteorder("=").name not in _TYPES:
        raise refused(f"the array's type is {dtype}; accepted are {', '.join(_TYPES)}")
    content = body[stream.tell() :]
    count = 1
    for length in shape:  # Python's integers: NumPy's would overflow
        count *= length
    if any(isinstance(length, bool) for length in shape):  # True is an int to NumPy's header
        raise refused(f"the array's header says the shape {shape}; lengths are whole numbers")
    if min(shape, default=0) < 0 or count * dtype.itemsize != len(content):
        raise refused(
            f"the array's header says {shape} of {dtype}, but {len(content):,} bytes follow"
        )
    flat: NDArray[np.floating] = np.frombuffer(content, dtype=dtype)
    return flat.reshape(shape, order="F" if is_fortran else "C")


# --- multipart ---
# multipart/form-data: several images in one request, as a browser or `curl -F` sends them.

_PIECE_BYTES = 1 << 16


class _InMemoryParser(MultiPartParser):
    """Spools nothing to a disk that may be read-only; the body is in memory and limited anyway."""

    spool_max_size = 2**30
    is_whole = False

    def on_end(self) -> None:
        """The line that ends a form."""
        self.is_whole = True


async def read_files(body: bytes, *, content_type: str) -> list[bytes]:
    """The files of a form, in its order; other fields are refused.

    Raises:
        HTTPException: 400 for a malformed form or one without files, 413 for too many.
    """
    parser = _InMemoryParser(
        Headers({"content-type": content_type}),
        _in_pieces(body, is_whole=lambda: parser.is_whole),
        max_files=MAX_IMAGES,
        max_fields=0,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if "Too many files" in error.message:
            raise too_many_images(MAX_IMAGES + 1) from error
        raise refused(
            f"the form cannot be read ({error.message}); send each image as a file field"
        ) from error
    except (ValueError, KeyError, LookupError) as error:
        raise refused("the form cannot be read; its content type needs a boundary") from error
    files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    contents = [await file.read() for file in files]
    await form.close()
    if not contents:
        raise refused("the form holds no file; send each image as a file field")
    return contents


async def _in_pieces(body: bytes, *, is_whole: Callable[[], bool]) -> AsyncGenerator[bytes, None]:
    """The parser is written in Python: between two pieces it is the turn of other requests.

    Raises:
        MultiPartException: after the last, the form has no end; its last file would be left out.
    """
    for start in range(0, len(body), _PIECE_BYTES):
        yield body[start : start + _PIECE_BYTES]
        await asyncio.sleep(0)
    if not is_whole():
        raise MultiPartException("it is cut off: the line that ends it is missing")


# --- json bodies ---
# application/json requests: images by URL, or as base64.
#
# {"url": "https://…"}           {"urls": ["https://…", …]}
# {"image": "base64…"}           {"images": ["base64…", …]}
#
# Python's parser holds the interpreter while it works, so that large bodies are parsed in a process
# of their own (decoders.py). 6 MB of brackets would take most of a second of its time, and ten
# times their memory. Such bodies are told by their punctuation, which is counted first.

_ACCEPTED = 'one of {"url": …}, {"urls": […]}, {"image": base64}, {"images": [base64, …]}'
_KEYS = ("url", "urls", "image", "images")
_DATA_URL = re.compile(
    r"data:image/[a-z0-9.+-]{1,40}(;[a-z0-9=.+-]{1,40}){0,4};base64,", re.IGNORECASE | re.ASCII
)
_MAX_PUNCTUATION = 4096
"""Of all kinds together. A list of 64 texts takes 200; base64 and plain URLs hold none."""


@dataclass(frozen=True)
class JsonImages:
    """What a JSON body names: one of the two is empty."""

    urls: tuple[str, ...] = ()
    images: tuple[bytes, ...] = ()
    is_list: bool = False
    """Whether the answer is a list, as the question was."""


def read_json(body: bytes) -> JsonImages:
    """The images that a JSON body names.

    Raises:
        HTTPException: 400 says what is accepted, 413 for too many images.
    """
    key, value = _only_pair(_parsed(body))
    is_list = key.endswith("s")
    texts = _texts(key, value) if is_list else [_text(key, value)]
    if key.startswith("url"):
        if (longest := max(map(len, texts))) > MAX_URL:
            raise refused(f"a URL of {longest:,} characters; at most {MAX_URL:,}")
        return JsonImages(urls=tuple(texts), is_list=is_list)
    images = tuple(_decoded(text, position=position) for position, text in enumerate(texts, 1))
    return JsonImages(images=images, is_list=is_list)


def _parsed(body: bytes) -> Any:  # noqa: ANN401 - whatever was sent
    escaped = body.count(b"\\")
    # Wrapped base64 has an escaped line end for each 57 or 48 bytes, each a cheap token.
    marks = sum(body.count(mark) for mark in (b"{", b"[", b",", b":", b'"'))
    if marks > _MAX_PUNCTUATION or escaped > len(body) // 16 + _MAX_PUNCTUATION:
        raise refused(f"the body holds more than images or URLs; accepted is {_ACCEPTED}")
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise refused(f"the body is no valid JSON; accepted is {_ACCEPTED}") from error


def _only_pair(content: object) -> tuple[str, object]:
    if not isinstance(content, dict) or len(content) != 1 or not {*content} <= {*_KEYS}:
        found = reprlib.repr(sorted(content) if isinstance(content, dict) else content)
        raise refused(f"the body holds {found}; accepted is {_ACCEPTED}")
    return next(iter(content.items()))


def _texts(key: str, value: object) -> list[str]:
    if not isinstance(value, list) or not value:
        raise refused(f"{key!r} must be a list with at least one text")
    if len(value) > MAX_IMAGES:
        raise too_many_images(len(value))
    return [_text(key, item) for item in value]


def _text(key: str, value: object) -> str:
    if not isinstance(value, str):
        shown = reprlib.repr(value)  # what was sent may be large
        raise refused(f"{key!r} holds {shown}, which is no text; accepted is {_ACCEPTED}")
    return value


def _decoded(text: str, *, position: int) -> bytes:
    """What base64 stands for, wrapped into lines or not, alone or as a data URL."""
    match = _DATA_URL.match(text)
    try:
        packed = text[match.end() :].encode("ascii") if match else text.encode("ascii")
        return binascii.a2b_base64(packed.translate(None, b" \t\r\n"), strict_mode=True)
    except (binascii.Error, ValueError) as error:
        raise refused(f"image {position} is no valid base64") from error


# --- content ---

IMAGE_TYPES = (
    "image/jpeg",
    "image/jpg",
    "image/png",
    "image/webp",
    "image/bmp",
    "application/x-image",
    "application/octet-stream",
)
"""What the body really is, is judged by its content."""

MULTIPART, JSON, NPY = "multipart/form-data", "application/json", "application/x-npy"
ACCEPTED_TYPES = (*IMAGE_TYPES, MULTIPART, JSON, NPY)

_LARGE_BYTES = 2**16
"""JSON of so many bytes is parsed in a millisecond at most."""

ReadJson = Callable[[bytes], Awaitable[JsonImages]]
FetchUrls = Callable[[tuple[str, ...]], Awaitable[list[bytes]]]


@dataclass(frozen=True)
class Content:
    """The images of a request: encoded ones, or preprocessed arrays."""

    images: tuple[bytes, ...] = ()
    arrays: Floats | None = None
    """(N, 3, S, S)."""
    is_list: bool = False
    """Whether the answer is a list; else there is one image and its answer."""


def media_type(header: str | None) -> str:
    """The type alone, in lower case; a body without one is taken for an image.

    Raises:
        HTTPException: 415 names what is accepted.
    """
    kind = (header or "application/octet-stream").partition(";")[0].strip().lower()
    if kind not in ACCEPTED_TYPES:
        message = f"content type {header!r}; accepted are {', '.join(ACCEPTED_TYPES)}"
        raise unsupported(message, header="Accept", accepted=ACCEPTED_TYPES)
    return kind


async def read_content(
    body: bytes,
    *,
    header: str | None,
    image_size: int,
    fetch: FetchUrls,
    read_large_json: ReadJson,
) -> Content:
    """The images that a body holds or names.

    Args:
        header: the request's Content-Type.
        image_size: S of the model, for arrays.
        fetch: brings the images behind URLs, or refuses to.
        read_large_json: parses what would hold up the event loop.

    Raises:
        HTTPException: 4xx says what is wrong.
    """
    kind = media_type(header)
    is_large = len(body) > _LARGE_BYTES
    if kind == JSON:
        found = await read_large_json(body) if is_large else read_json(body)
        images = tuple(await fetch(found.urls)) if found.urls else found.images
        return Content(images=images, is_list=found.is_list)
    if kind == MULTIPART:
        files = await read_files(body, content_type=header or "")
        return Content(images=tuple(files), is_list=True)
    if kind == NPY:
        read = partial(read_images, body, image_size=image_size)
        arrays = await asyncio.to_thread(read) if is_large else read()
        return Content(arrays=arrays.reshape(-1, *arrays.shape[-3:]), is_list=arrays.ndim == 4)
    return Content(images=(body,))
