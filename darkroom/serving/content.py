"""From a request's body to images, by its content type.

What takes long for a large body is done elsewhere than in the event loop.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from darkroom.engines.protocol import Floats
from darkroom.serving import npy
from darkroom.serving.json_bodies import JsonImages, read_json
from darkroom.serving.limits import unsupported
from darkroom.serving.multipart import read_files

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
        read = partial(npy.read_images, body, image_size=image_size)
        arrays = await asyncio.to_thread(read) if is_large else read()
        return Content(arrays=arrays.reshape(-1, *arrays.shape[-3:]), is_list=arrays.ndim == 4)
    return Content(images=(body,))
