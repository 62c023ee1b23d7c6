"""Archives from http(s) addresses: fetched once, resumed where interrupted."""

import gzip
import hashlib
import json
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Self, cast
from urllib.parse import unquote, urlsplit

import requests
from filelock import FileLock
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

from darkroom.base.errors import DarkroomError, UserError
from darkroom.base.files import write_text
from darkroom.base.progress import SILENT, Progress
from darkroom.data.archives import (
    START_BYTES,
    is_archive_start,
    is_tar_start,
    is_web_page,
    not_an_archive,
)
from darkroom.data.hashes import HashIndex, is_as_recorded, record_content
from darkroom.data.source_names import public_url

# --- http answers ---
# What web servers say about files, and what it means for the user.

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


# --- download ---

_ATTEMPTS = 5
"""How often a transfer that breaks off is resumed."""
_CHUNK_BYTES = 1 << 18
_PEEK_BYTES = 1 << 12
"""Of a file, from which START_BYTES decode."""
_SECONDS_TO_CONNECT_AND_READ = (10, 60)


class _BrokenOffError(Exception):
    """The connection ended before the file did."""


def look_up_archive(url: str) -> RemoteFile:
    """What the server says about an archive, of which only the first bytes are fetched.

    Raises:
        UserError: the server cannot be reached, has no such file, or it is no archive.
    """
    with http_session() as session, network_trouble_explained(url):
        answer = session.get(
            url,
            headers={"Range": f"bytes=0-{_PEEK_BYTES - 1}"},
            stream=True,
            timeout=_SECONDS_TO_CONNECT_AND_READ,
        )
        with answer:
            # An empty file has no first byte that could be sent.
            is_empty = answer.status_code == requests.codes.requested_range_not_satisfiable
            if not is_empty:
                check_answer(answer, url=url)
            start = b"" if is_empty else _first_bytes(answer)
            found = remote_file(answer)
            _check_start(start, found=found, url=url, answered_by=answer.url)
    if answer.status_code == requests.codes.partial_content:
        total = answer.headers.get("Content-Range", "").rpartition("/")[2]
        found = replace(found, size=int(total) if total.isdecimal() else None)
    return found


def _first_bytes(answer: requests.Response) -> bytes:
    start = b""
    try:
        for chunk in raw_chunks(answer, size=_PEEK_BYTES):
            start += chunk
            if len(start) >= _PEEK_BYTES:
                break
    except HTTPError:
        pass  # what has come says enough, or the download will tell
    return start


def _check_start(start: bytes, *, found: RemoteFile, url: str, answered_by: str) -> None:
    """Refuse what is no archive, whether as it is sent or decoded."""
    decoded = decoded_start(start, encoding=found.encoding, size=START_BYTES)
    if is_archive_start(start[:START_BYTES]) or is_archive_start(decoded or b""):
        return
    beginning = (decoded or start)[:START_BYTES]
    if is_web_page(beginning):
        raise UserError(_web_page(url, answered_by=answered_by))
    raise UserError(not_an_archive(public_url(url), start=beginning))


def _web_page(url: str, *, answered_by: str) -> str:
    elsewhere = public_url(answered_by)
    led = f" after leading to {elsewhere!r}" if elsewhere != public_url(url) else ""
    return (
        f"{public_url(url)!r} is a web page, not a file: so the server answers{led}. It may want a "
        "login or a confirmation first. Give the address of the file itself, or fetch it with a "
        "browser and give its path."
    )


def look_up(url: str) -> RemoteFile:
    """What the server says about a file, without fetching it.

    Raises:
        UserError: the server cannot be reached, or has no such file.
    """
    with http_session() as session, network_trouble_explained(url):
        answer = session.head(url, allow_redirects=True, timeout=_SECONDS_TO_CONNECT_AND_READ)
        if answer.status_code in (403, 405, 501):  # signed for GET only, or no HEAD at all
            answer = session.get(url, stream=True, timeout=_SECONDS_TO_CONNECT_AND_READ)
            answer.close()
        check_answer(answer, url=url)
        return remote_file(answer)


def download(
    url: str,
    *,
    store: Path,
    maximum_bytes: int,
    progress: Progress = SILENT,
    pause: Callable[[float], None] = time.sleep,
) -> Path:
    """Fetch a file to `store/downloads/`, unless the same content lies there already.

    It is the same when the server's ETag, or else its Last-Modified, has not changed; a
    server that gives neither is asked for the content each time. A file that was changed here
    since is fetched again. A transfer that broke
    off, in this call or an earlier one, goes on where it stopped if the file is still
    the same.

    Args:
        maximum_bytes: largest file that is accepted.
        pause: how to wait between attempts, given seconds.

    Raises:
        UserError: the address is wrong, unreachable, or the file too large.
        DarkroomError: the transfer kept breaking off.
    """
    folder = store / "downloads" / hashlib.sha256(url.encode()).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    transfer = _Transfer(url, folder=folder, maximum_bytes=maximum_bytes, progress=progress)
    with FileLock(folder / "lock"), HashIndex.in_store(store) as index:
        transfer.know(index)
        for attempt in range(_ATTEMPTS):
            try:
                return transfer.run(index)
            except _BrokenOffError:
                pause(0.5 * 2**attempt)
    raise DarkroomError(
        f"the download of {public_url(url)!r} broke off {_ATTEMPTS} times. "
        "What has arrived is kept; run the same command again to go on."
    )


class _Transfer:
    """One URL and its folder: the file, or the part of it that has arrived."""

    def __init__(self, url: str, *, folder: Path, maximum_bytes: int, progress: Progress) -> None:
        self._url, self._folder = url, folder
        self._maximum_bytes, self._progress = maximum_bytes, progress
        name = PurePosixPath(unquote(urlsplit(url).path)).name.lstrip(".")
        self._file = folder / "content" / (name[-100:] or "archive")
        self._part, self._state = folder / "part", folder / "state.json"
        self._is_whole = False

    def know(self, index: HashIndex) -> None:
        """Find out whether the file is here as it was fetched."""
        content = self._file.parent
        self._is_whole = self._file.is_file() and is_as_recorded(content, index=index)

    def run(self, index: HashIndex) -> Path:
        """Fetch what is missing."""
        known = RemoteFile.load(self._state)
        with http_session() as session, network_trouble_explained(self._url):
            answer = session.get(
                self._url,
                headers=self._conditions(known),
                stream=True,
                timeout=_SECONDS_TO_CONNECT_AND_READ,
            )
            with answer:
                if answer.status_code == requests.codes.not_modified and self._is_whole:
                    return self._file
                self._check_range(answer)
                check_answer(answer, url=self._url)
                self._receive(answer)
        record_content(self._file.parent, index=index)
        return self._file

    def _conditions(self, known: RemoteFile | None) -> dict[str, str]:
        """Headers that ask for nothing, or only for the rest, if the file is what it was."""
        if known and self._is_whole:
            return known.unless_changed()
        if known and self._part.is_file():
            return known.rest_from(self._part.stat().st_size)
        return {}

    def _check_range(self, answer: requests.Response) -> None:
        """Start over when the answer does not go on where the part ends."""
        arrived = self._part.stat().st_size if self._part.is_file() else 0
        start = f"bytes {arrived}-"
        partial = answer.status_code == requests.codes.partial_content
        goes_on = not partial or answer.headers.get("Content-Range", "").startswith(start)
        if answer.status_code == requests.codes.requested_range_not_satisfiable or not goes_on:
            self._part.unlink(missing_ok=True)
            raise _BrokenOffError

    def _receive(self, answer: requests.Response) -> None:
        resumed = answer.status_code == requests.codes.partial_content
        arrived = self._part.stat().st_size if resumed else 0
        found = remote_file(answer, arrived=arrived)
        self._check_size(found.size or 0)
        shutil.rmtree(self._file.parent, ignore_errors=True)
        self._is_whole = False
        write_text(self._state, found.to_json())
        description = f"Downloading {self._file.name}"
        with self._progress.task(description, total=found.size) as task:
            task.advance(arrived)
            with self._part.open("ab" if resumed else "wb") as part:
                for chunk in _chunks(answer):
                    part.write(chunk)
                    self._check_size(part.tell())
                    task.advance(len(chunk))
        self._finish(found, answered_by=answer.url)

    def _finish(self, found: RemoteFile, *, answered_by: str) -> None:
        if found.size is not None and self._part.stat().st_size != found.size:
            raise _BrokenOffError
        if found.encoding:
            self._decode(found.encoding)
        with self._part.open("rb") as part:
            is_page = is_web_page(part.read(START_BYTES))
        if is_page:
            self._part.unlink()
            raise UserError(_web_page(self._url, answered_by=answered_by))
        self._file.parent.mkdir(exist_ok=True)
        self._part.replace(self._file)

    def _decode(self, encoding: str) -> None:
        """Undo an encoding that was not asked for, unless the file itself is what is compressed.

        Servers label a .tar.gz as a .tar in the encoding gzip (Apache's AddEncoding); others
        compress whatever they send.
        """
        with self._part.open("rb") as part:
            raw = part.read(_PEEK_BYTES)
        start = decoded_start(raw, encoding=encoding, size=START_BYTES)
        if start is None and is_archive_start(raw[:START_BYTES]):
            return  # labelled, but not encoded
        if start is None:
            self._part.unlink()
            raise UserError(
                f"{public_url(self._url)!r} is sent in the encoding {encoding!r}, which cannot be "
                "undone here. Fetch the file yourself and give its path."
            )
        if encoding != "deflate" and is_tar_start(start):
            return
        decoded = self._folder / "decoded"
        with self._part.open("rb") as part, decoded.open("wb") as file:
            try:
                for chunk in decode(part, encoding=encoding):
                    file.write(chunk)
                    self._check_size(file.tell())
            except (EOFError, OSError, zlib.error) as error:
                if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile):
                    raise
                self._part.unlink()
                raise UserError(
                    f"{public_url(self._url)!r} does not decode from {encoding!r}, in which it is "
                    f"sent: {error}. Fetch the file yourself and give its path."
                ) from error
        decoded.replace(self._part)

    def _check_size(self, size: int) -> None:
        if size > self._maximum_bytes:
            self._part.unlink(missing_ok=True)
            raise UserError(
                f"{public_url(self._url)!r} is larger than {self._maximum_bytes:,} bytes. "
                "If that is meant, raise data.maximum_archive_bytes."
            )


def _chunks(answer: requests.Response) -> Iterator[bytes]:
    try:
        yield from raw_chunks(answer, size=_CHUNK_BYTES)
    except HTTPError as error:
        raise _BrokenOffError from error
