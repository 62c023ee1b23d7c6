"""Archives from http(s) addresses: fetched once, resumed where interrupted."""

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import requests
from filelock import FileLock

from darkroom.errors import DarkroomError, UserError
from darkroom.files import write_text
from darkroom.progress import SILENT, Progress
from darkroom.sources.http_answers import (
    RemoteFile,
    check_answer,
    http_session,
    network_trouble_explained,
    remote_file,
)
from darkroom.sources.source_names import public_url

_ATTEMPTS = 5
"""How often a transfer that breaks off is resumed."""
_CHUNK_BYTES = 1 << 18
_SECONDS_TO_CONNECT_AND_READ = (10, 60)


class _BrokenOffError(Exception):
    """The connection ended before the file did."""


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
    server that gives neither is asked for the content each time. A transfer that broke
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
    with FileLock(folder / "lock"):
        for attempt in range(_ATTEMPTS):
            try:
                return transfer.run()
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

    def run(self) -> Path:
        known = RemoteFile.load(self._state)
        with http_session() as session, network_trouble_explained(self._url):
            answer = session.get(
                self._url,
                headers=self._conditions(known),
                stream=True,
                timeout=_SECONDS_TO_CONNECT_AND_READ,
            )
            with answer:
                if answer.status_code == requests.codes.not_modified and self._file.is_file():
                    return self._file
                self._check_range(answer)
                check_answer(answer, url=self._url)
                self._receive(answer)
        return self._file

    def _conditions(self, known: RemoteFile | None) -> dict[str, str]:
        """Headers that ask for nothing, or only for the rest, if the file is what it was."""
        if known and self._file.is_file():
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
        self._file.unlink(missing_ok=True)
        write_text(self._state, found.to_json())
        description = f"Downloading {self._file.name}"
        with self._progress.task(description, total=found.size) as task:
            task.advance(arrived)
            with self._part.open("ab" if resumed else "wb") as part:
                for chunk in _chunks(answer):
                    part.write(chunk)
                    self._check_size(part.tell())
                    task.advance(len(chunk))
        self._finish(found)

    def _finish(self, found: RemoteFile) -> None:
        if found.size is not None and self._part.stat().st_size != found.size:
            raise _BrokenOffError
        self._file.parent.mkdir(exist_ok=True)
        self._part.replace(self._file)

    def _check_size(self, size: int) -> None:
        if size > self._maximum_bytes:
            self._part.unlink(missing_ok=True)
            raise UserError(
                f"{public_url(self._url)!r} is larger than {self._maximum_bytes:,} bytes. "
                "If that is meant, raise data.maximum_archive_bytes."
            )


def _chunks(answer: requests.Response) -> Iterator[bytes]:
    try:
        yield from answer.iter_content(_CHUNK_BYTES)
    except (requests.exceptions.ChunkedEncodingError, requests.ConnectionError) as error:
        raise _BrokenOffError from error
