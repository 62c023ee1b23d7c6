"""What web servers say about files, and what it means for the user."""

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, Self, cast

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from darkroom.errors import DarkroomError, UserError
from darkroom.sources.source_names import public_url

_DECODED = ("gzip", "x-gzip", "deflate")
_ANY_HEADER = 47  # zlib: 32 for gzip or zlib, whichever it is, and the largest window
_DECODED_BYTES = 1 << 18
_PASSING_TROUBLE = (429, 500, 502, 503, 504)
_ADVICE = {
    401: "It wants a login: give the address with user and password, or fetch it yourself.",
    403: "It may not be fetched, or its signed address has expired.",
    404: "Check the address.",
    410: "It is gone for good; look for another address.",
}


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file on a server, as far as the server tells."""

    etag: str | None
    last_modified: str | None
    size: int | None
    """Bytes."""
    encoding: str = ""
    """Content-Encoding, in lower case; empty: the file's own bytes are sent."""

    @property
    def version(self) -> str:
        """What changes when the file does; 'unversioned' where the server tells nothing."""
        known = (self.etag, self.last_modified, self.size)
        return "unversioned" if known == (None, None, None) else repr(known)

    def unless_changed(self) -> dict[str, str]:
        """Request headers that are answered by 304 when the file is still this one."""
        if self.etag:
            return {"If-None-Match": self.etag}
        return {"If-Modified-Since": self.last_modified} if self.last_modified else {}

    def rest_from(self, start: int) -> dict[str, str]:
        """Request headers for the bytes from `start` on, or all if the file has changed.

        If-Range takes no weak validators (RFC 9110, section 13.1.5), so without a strong
        ETag or a date the file is asked for in whole.
        """
        strong = self.etag if self.etag and not self.etag.startswith("W/") else None
        validator = strong or self.last_modified
        return {"Range": f"bytes={start}-", "If-Range": validator} if validator else {}

    def to_json(self) -> str:
        """As a file can hold it."""
        return json.dumps(asdict(self))

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """What `to_json` was written to a file, or None where it is missing or damaged."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None


def remote_file(answer: requests.Response, *, arrived: int = 0) -> RemoteFile:
    """What an answer says about its file, of which `arrived` bytes are not sent again."""
    length = answer.headers.get("Content-Length", "")
    return RemoteFile(
        etag=answer.headers.get("ETag"),
        last_modified=answer.headers.get("Last-Modified"),
        size=arrived + int(length) if length.isdecimal() else None,
        encoding=encoding_of(answer.headers),
    )


def encoding_of(headers: Mapping[str, str]) -> str:
    """What a body is encoded by, although none is asked for; '' where it is not."""
    encoding = headers.get("Content-Encoding", "").strip().lower()
    return "" if encoding == "identity" else encoding


def raw_chunks(answer: requests.Response, *, size: int) -> Iterator[bytes]:
    """A body's bytes as they are sent: decoded, they would be others than those counted.

    Raises:
        urllib3.exceptions.HTTPError: the connection ended before the body did.
    """
    return cast(Iterator[bytes], answer.raw.stream(size, decode_content=False))


def decoded_start(start: bytes, *, encoding: str, size: int) -> bytes | None:
    """At most `size` bytes that a body decodes to, by its first ones; None: it does not decode."""
    if encoding not in _DECODED:
        return None
    try:
        return zlib.decompressobj(_ANY_HEADER).decompress(start, size)
    except zlib.error:
        return None


def decode(file: BinaryIO, *, encoding: str) -> Iterator[bytes]:
    """What a file that was sent encoded decodes to, in pieces.

    Raises:
        EOFError, gzip.BadGzipFile, zlib.error: it does not.
    """
    if encoding != "deflate":
        with gzip.GzipFile(fileobj=file) as decoded:
            while chunk := decoded.read(_DECODED_BYTES):
                yield chunk
        return
    decoder = zlib.decompressobj()
    while not decoder.eof:
        packed = decoder.unconsumed_tail or file.read(_DECODED_BYTES)
        if not packed:
            raise EOFError("it ends too early")
        yield decoder.decompress(packed, _DECODED_BYTES)


def http_session() -> requests.Session:
    """A session that asks again, at growing intervals, when a server is busy."""
    retries = Retry(
        total=4,
        connect=2,
        backoff_factor=0.3,
        status_forcelist=_PASSING_TROUBLE,
        raise_on_status=False,
    )
    session = requests.Session()
    session.headers["Accept-Encoding"] = "identity"  # so that ranges count the file's bytes
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retries))
    return session


def check_answer(answer: requests.Response, *, url: str) -> None:
    """Make sure that the server has the file.

    Raises:
        UserError: it has not, or does not give it.
        DarkroomError: it is in trouble, after retries.
    """
    if answer.ok:
        return
    status = f"{answer.status_code} {answer.reason}".strip()
    message = f"{public_url(url)!r} cannot be fetched: the server answers {status!r}."
    if answer.status_code in _PASSING_TROUBLE:
        raise DarkroomError(f"{message} Try again later.")
    raise UserError(f"{message} {_ADVICE.get(answer.status_code, 'Check the address.')}")


@contextmanager
def network_trouble_explained(url: str) -> Iterator[None]:
    """Turn what requests raises into errors that say what to do."""
    try:
        yield
    except requests.exceptions.SSLError as error:
        raise UserError(
            f"the certificate of {public_url(url)!r} is not trusted: {_cause(error)}. "
            "Set REQUESTS_CA_BUNDLE if your network has its own authority."
        ) from error
    except (requests.ConnectionError, requests.Timeout) as error:
        raise UserError(
            f"the server of {public_url(url)!r} cannot be reached: {_cause(error)}. "
            "Check the address and the network, or fetch the file yourself and give its path."
        ) from error
    except requests.RequestException as error:
        raise UserError(f"{public_url(url)!r} cannot be fetched: {_cause(error)}.") from error


def _cause(error: BaseException) -> str:
    """The innermost reason that urllib3 wrapped, without addresses that may hold secrets."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return type(reason or error).__name__
