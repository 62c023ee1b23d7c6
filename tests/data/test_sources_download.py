"""Downloads over a real connection: cached, resumed, limited, and clear about trouble."""

import gzip
import io
import random
import re
import socket
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from darkroom.base.errors import DarkroomError, UserError
from darkroom.data.archives import list_archive
from darkroom.data.download import download, look_up, look_up_archive

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
    encoding: str = ""
    """What the server says, of content that it sends as it is."""
    redirects_to: str = ""
    url: str = ""
    asked: list[tuple[str, int, str | None]] = field(default_factory=list)
    """Method, status and range of each request."""


class _Handler(BaseHTTPRequestHandler):
    site: _Site

    def do_HEAD(self) -> None:
        self._answer(405 if not self.site.supports_head else self._status(), b"")

    def do_GET(self) -> None:
        site, status = self.site, self._status()
        if site.redirects_to and not self.path.endswith(site.redirects_to):
            self.send_response(302)
            self.send_header("Location", site.redirects_to)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = self._start()
        peeked = re.fullmatch(r"bytes=0-(\d+)", self.headers["Range"] or "")
        if status == 200 and site.supports_ranges and peeked:
            end = min(int(peeked[1]) + 1, len(site.content))
            self._answer(206 if site.content else 416, site.content[:end], end=end)
        elif status == 200 and start:
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

    def _answer(self, status: int, body: bytes, *, start: int = 0, end: int = 0) -> None:
        self.site.asked.append((self.command, status, self.headers["Range"]))
        self.send_response(status)
        size = len(self.site.content)
        self.send_header("Content-Length", str(size if self.command == "HEAD" else len(body)))
        if self.site.etag:
            self.send_header("ETag", self.site.etag)
        if self.site.encoding:
            self.send_header("Content-Encoding", self.site.encoding)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{(end or size) - 1}/{size}")
        self.end_headers()
        if self.site.break_off_after is not None:
            body = body[: self.site.break_off_after]
            self.site.break_off_after = None
            self.close_connection = True
        with suppress(ConnectionError):  # whoever has seen enough hangs up
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


def _tar_gz() -> bytes:
    return _packed(lambda file: tarfile.open(fileobj=file, mode="w:gz"))


def _tar() -> bytes:
    return _packed(lambda file: tarfile.open(fileobj=file, mode="w:"))


def _packed(opened: Callable[[io.BytesIO], tarfile.TarFile]) -> bytes:
    file = io.BytesIO()
    with opened(file) as archive:
        info = tarfile.TarInfo("cat/1.jpg")
        info.size = 50_000
        archive.addfile(info, io.BytesIO(random.Random(0).randbytes(info.size)))
    return file.getvalue()


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("cat/1.jpg", b"x" * 5000)
    return file.getvalue()


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZIP", "identity"])
def test_a_compressed_tar_that_is_labelled_as_encoded_is_fetched_as_it_is(site, tmp_path, encoding):
    site.content, site.encoding, site.break_off_after = _tar_gz(), encoding, 20_000
    path = _download(site.url, tmp_path)
    assert path.read_bytes() == site.content
    assert [status for _, status, _ in site.asked] == [200, 206]
    assert look_up_archive(site.url).size == len(site.content)


@pytest.mark.parametrize(
    ("encoding", "packed"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
@pytest.mark.parametrize("make", [_zip, _tar_gz])
def test_an_encoding_that_was_not_asked_for_is_undone(site, tmp_path, encoding, packed, make):
    archive = make()
    site.content, site.encoding = packed(archive), encoding
    look_up_archive(site.url)
    assert _download(site.url, tmp_path).read_bytes() == archive
    assert _download(site.url, tmp_path).read_bytes() == archive
    assert site.asked[-1][1] == 304


@pytest.mark.parametrize(
    ("encoding", "packed"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
def test_a_tar_that_is_encoded_on_its_way_can_be_unpacked(site, tmp_path, encoding, packed):
    site.content, site.encoding = packed(_tar()), encoding
    path = _download(site.url, tmp_path)
    listing = list_archive(path, maximum_bytes=10**6, maximum_files=9)
    assert [file.path for file in listing.files] == ["cat/1.jpg"]


def test_an_encoding_is_no_way_around_the_limit(site, tmp_path):
    site.content, site.encoding = gzip.compress(b"PK\x03\x04" + bytes(10**6)), "gzip"
    with pytest.raises(UserError, match="larger than 100,000 bytes"):
        _download(site.url, tmp_path, maximum_bytes=100_000)


@pytest.mark.parametrize(
    ("encoding", "content", "message"),
    [
        ("br", b"whatever", "'br', which cannot be undone"),
        ("gzip", b"whatever", "'gzip', which cannot be undone"),
        ("gzip", gzip.compress(_zip())[:-9], "does not decode from 'gzip'"),
        ("deflate", zlib.compress(_zip())[:-9], "does not decode from 'deflate'"),
    ],
    ids=["br", "no gzip", "broken gzip", "broken deflate"],
)
def test_an_encoding_that_cannot_be_undone_is_named(site, tmp_path, encoding, content, message):
    site.content, site.encoding = content, encoding
    with pytest.raises(UserError, match=message):
        _download(site.url, tmp_path)


PAGES = [
    b"<!DOCTYPE html><title>Log in</title>",
    b"\xef\xbb\xbf\n <!-- x --> <HTML lang=en>",
    b'<?xml version="1.0"?>\n<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Strict//EN">',
]


@pytest.mark.parametrize("page", PAGES)
def test_a_web_page_in_place_of_an_archive_is_named_before_and_in_the_run(site, tmp_path, page):
    site.content = page
    for attempt in (lambda: look_up_archive(site.url), lambda: _download(site.url, tmp_path)):
        with pytest.raises(UserError, match=r"photos\.zip' is a web page, not a file"):
            attempt()
    assert not list(tmp_path.rglob("photos.zip"))


def test_a_redirect_to_a_login_page_is_told(site, tmp_path):
    site.content, site.redirects_to = PAGES[0], "/login?next=secret"
    for attempt in (lambda: look_up_archive(site.url), lambda: _download(site.url, tmp_path)):
        with pytest.raises(UserError, match=r"leading to 'http://127\.0\.0\.1:\d+/login'") as told:
            attempt()
        assert "secret" not in str(told.value)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "empty"),
        (b"Rar!\x1a\x07\x01\x00", "a RAR archive"),
        (b"7z\xbc\xaf\x27\x1c\0\4", "a 7z archive"),
        (b"\xff\xd8\xff\xe0", "a JPEG image"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS's pointer"),
        (b'{"message": "Not Found"}', 'a text that begins with \'{"message": "Not Found"}'),
        (b"\x80\x02\xff", "of a kind that is not known"),
    ],
)
def test_what_is_no_archive_is_named_before_it_is_fetched(site, content, what):
    site.content = content
    with pytest.raises(UserError, match=f"it is {re.escape(what)}"):
        look_up_archive(site.url)


@pytest.mark.parametrize("supports_ranges", [True, False])
def test_only_the_start_of_an_archive_is_looked_at(site, supports_ranges):
    site.content, site.supports_ranges = _zip() + bytes(10**6), supports_ranges
    assert look_up_archive(site.url).size == len(site.content)


def test_a_file_that_was_changed_here_is_fetched_again(site, tmp_path):
    path = _download(site.url, tmp_path)
    path.write_bytes(b"x" * len(_CONTENT))
    assert _download(site.url, tmp_path).read_bytes() == _CONTENT
    assert [status for _, status, _ in site.asked] == [200, 200]
