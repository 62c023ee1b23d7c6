"""Downloads over a real connection: cached, resumed, limited, and clear about trouble."""

import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from darkroom.errors import DarkroomError, UserError
from darkroom.sources.download import download, look_up

_CONTENT = bytes(range(256)) * 4000


@dataclass
class _Site:
    """One file on a server of this machine, with as much trouble as a test wants."""

    content: bytes = _CONTENT
    etag: str | None = '"one"'
    status: int = 200
    break_off_after: int | None = None
    """Bytes after which the next full answer's connection is closed, once."""
    supports_head: bool = True
    supports_ranges: bool = True
    busy_answers: int = 0
    url: str = ""
    asked: list[tuple[str, int, str | None]] = field(default_factory=list)
    """Method, status and range of each request."""


class _Handler(BaseHTTPRequestHandler):
    site: _Site

    def do_HEAD(self) -> None:
        self._answer(405 if not self.site.supports_head else self._status(), b"")

    def do_GET(self) -> None:
        site, status = self.site, self._status()
        start = self._start()
        if status == 200 and start:
            self._answer(206, site.content[start:], start=start)
        elif status == 200 and site.etag and self.headers["If-None-Match"] == site.etag:
            self._answer(304, b"")
        else:
            self._answer(status, site.content)

    def _status(self) -> int:
        if self.site.busy_answers:
            self.site.busy_answers -= 1
            return 503
        return self.site.status

    def _start(self) -> int:
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        same = self.headers["If-Range"] == self.site.etag
        return int(asked[1]) if asked and same and self.site.supports_ranges else 0

    def _answer(self, status: int, body: bytes, *, start: int = 0) -> None:
        self.site.asked.append((self.command, status, self.headers["Range"]))
        self.send_response(status)
        size = len(self.site.content)
        self.send_header("Content-Length", str(size if self.command == "HEAD" else len(body)))
        if self.site.etag:
            self.send_header("ETag", self.site.etag)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.end_headers()
        if self.site.break_off_after is not None:
            body = body[: self.site.break_off_after]
            self.site.break_off_after = None
            self.close_connection = True
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[_Site]:
    state = _Site()
    handler = type("Handler", (_Handler,), {"site": state})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        state.url = f"http://127.0.0.1:{server.server_port}/some/photos.zip"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        server.shutdown()
        thread.join()


def _download(url: str, store: Path, *, maximum_bytes: int = 10**8) -> Path:
    return download(url, store=store, maximum_bytes=maximum_bytes, pause=lambda _seconds: None)


def test_a_file_is_fetched_under_its_own_name(site, tmp_path):
    path = _download(site.url, tmp_path)
    assert path.name == "photos.zip"
    assert path.read_bytes() == _CONTENT


def test_the_same_content_is_not_sent_twice(site, tmp_path):
    first = _download(site.url, tmp_path)
    assert _download(site.url, tmp_path) == first
    assert [status for _, status, _ in site.asked] == [200, 304]


def test_changed_content_is_fetched_anew(site, tmp_path):
    _download(site.url, tmp_path)
    site.content, site.etag = b"changed", '"two"'
    assert _download(site.url, tmp_path).read_bytes() == b"changed"


def test_a_server_without_versions_is_asked_for_the_content_each_time(site, tmp_path):
    site.etag = None
    _download(site.url, tmp_path)
    site.content = b"changed"
    assert _download(site.url, tmp_path).read_bytes() == b"changed"


def test_a_transfer_that_breaks_off_goes_on_where_it_stopped(site, tmp_path):
    site.break_off_after = 300_000
    assert _download(site.url, tmp_path).read_bytes() == _CONTENT
    (_, first, _), (_, second, asked) = site.asked
    assert (first, second) == (200, 206)
    assert asked != "bytes=0-"


def test_a_later_call_goes_on_where_an_interrupted_one_stopped(site, tmp_path):
    _leave_a_part(site, tmp_path)
    assert _download(site.url, tmp_path).read_bytes() == _CONTENT
    assert [status for _, status, _ in site.asked] == [206]


def test_a_part_of_older_content_is_not_continued(site, tmp_path):
    _leave_a_part(site, tmp_path)
    site.content, site.etag = _CONTENT[::-1], '"two"'
    assert _download(site.url, tmp_path).read_bytes() == _CONTENT[::-1]


def test_a_server_without_ranges_sends_the_whole_again(site, tmp_path):
    site.break_off_after, site.supports_ranges = 300_000, False
    assert _download(site.url, tmp_path).read_bytes() == _CONTENT
    assert [status for _, status, _ in site.asked] == [200, 200]


def _leave_a_part(site: _Site, store: Path) -> None:
    """Interrupt a download, as Ctrl-C does while it waits to try again."""

    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    site.break_off_after = 300_000
    with pytest.raises(KeyboardInterrupt):
        download(site.url, store=store, maximum_bytes=10**8, pause=interrupt)
    site.asked.clear()


def test_a_transfer_that_keeps_breaking_off_says_that_it_can_go_on(site, tmp_path):
    def break_again(_seconds: float) -> None:
        site.break_off_after = 1

    site.break_off_after = 1
    with pytest.raises(DarkroomError, match=r"broke off 5 times.*same command again"):
        download(site.url, store=tmp_path, maximum_bytes=10**8, pause=break_again)


def test_a_busy_server_is_asked_again(site, tmp_path):
    site.busy_answers = 1
    assert _download(site.url, tmp_path).read_bytes() == _CONTENT
    assert [status for _, status, _ in site.asked] == [503, 200]


@pytest.mark.parametrize(
    ("status", "advice"), [(404, "Check the address"), (403, "may not be fetched")]
)
def test_a_refusal_is_told_with_what_to_do(site, tmp_path, status, advice):
    site.status = status
    for attempt in (lambda: _download(site.url, tmp_path), lambda: look_up(site.url)):
        with pytest.raises(UserError, match=rf"{status}.*{advice}"):
            attempt()


def test_an_unreachable_server_is_told_with_what_to_do(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/a.zip"
        with pytest.raises(UserError, match="cannot be reached: NewConnectionError"):
            _download(url, tmp_path)


def test_a_file_beyond_the_limit_is_not_fetched(site, tmp_path):
    with pytest.raises(UserError, match=r"larger than 1,000 bytes.*maximum_archive_bytes"):
        _download(site.url, tmp_path, maximum_bytes=1000)
    assert not list(tmp_path.rglob("photos.zip"))
    assert not list(tmp_path.rglob("part"))


def test_errors_do_not_show_the_secrets_in_an_address(site, tmp_path):
    site.status = 404
    url = site.url.replace("http://", "http://user:password@") + "?X-Amz-Signature=secret"
    with pytest.raises(UserError) as refusal:
        _download(url, tmp_path)
    assert "password" not in str(refusal.value)
    assert "secret" not in str(refusal.value)


def test_the_version_changes_with_the_content(site):
    before = look_up(site.url).version
    assert look_up(site.url).version == before
    site.etag = '"two"'
    assert look_up(site.url).version != before
    assert all(method == "HEAD" for method, _, _ in site.asked)


def test_a_server_that_knows_no_head_requests_is_asked_otherwise(site):
    site.supports_head = False
    found = look_up(site.url)
    assert (found.etag, found.size) == ('"one"', len(_CONTENT))
