"""Images and archives from http(s) addresses."""

import io
import re
import zlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from time import monotonic

import requests
from urllib3.exceptions import HTTPError, ProtocolError, ReadTimeoutError

from darkroom.errors import DarkroomError
from darkroom.files import workspace
from darkroom.images import ImageError
from darkroom.inputs.archived import MAXIMUM_BYTES
from darkroom.inputs.found import MAXIMUM_IMAGE_BYTES, too_large
from darkroom.sources.archives import START_BYTES, is_archive_start, is_web_page
from darkroom.sources.download import download
from darkroom.sources.http_answers import decode, decoded_start, encoding_of

SCHEMES = ("http://", "https://")
_CONNECT_AND_READ_SECONDS = (5, 10)
_IMAGE_SECONDS = 30
_CHUNK_BYTES = 1 << 16
_PEEK_BYTES = 1 << 12
_USER_INFO = re.compile(r"//[^/?#\s]*@")


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
        return download(url, store=workspace() / "data", maximum_bytes=MAXIMUM_BYTES)
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
            if len(whole) > MAXIMUM_IMAGE_BYTES:
                raise ImageError(too_large())
    except (EOFError, OSError, zlib.error) as error:
        raise ImageError(f"does not decode from {encoding!r}: {error}") from error
    return whole


def _all(content: bytes, *, chunks: Iterator[bytes]) -> bytes:
    whole = bytearray()
    for chunk in chain([content], chunks):
        whole += chunk
        if len(whole) > MAXIMUM_IMAGE_BYTES:
            raise ImageError(too_large())
    return bytes(whole)


def _arriving(response: requests.Response) -> Iterator[bytes]:
    """The body as it comes: to wait until a chunk is full would let it drip for hours."""
    while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=False):
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
    return _USER_INFO.sub("//", str(error))
