"""URLs that callers name lead nowhere but to public addresses, and to nothing without end."""

import asyncio
import gzip
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from answering_server import AnsweringServer, answer, answering, redirect
from darkroom.serving.url_images import UrlFetcher, UrlPolicy, UrlRefusedError, is_public

IMAGE = b"the bytes of an image"


def run(scenario: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    return asyncio.run(scenario())


def loopback_allowed(address: str) -> bool:
    """For tests alone: the loopback counts as public."""
    return address == "127.0.0.1" or is_public(address)


def fetcher(server: AnsweringServer, **policy: Any) -> UrlFetcher:
    ports = (server.port, 80, 443)
    return UrlFetcher(UrlPolicy(**({"ports": ports} | policy)), is_allowed=loopback_allowed)


PRIVATE = [
    "127.0.0.1",
    "127.1",
    "127.255.255.254",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "017700000001",
    "0177.0.0.1",
    "０",
    "①②⑦.⓪.⓪.①",
    "127。0。0。1",
    "localhost",
    "LOCALHOST",
    "0",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.169.254",
    "169.254.170.2",
    "2852039166",
    "0xa9fea9fe",
    "198.18.0.1",
    "192.0.2.1",
    "203.0.113.9",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:a9fe:a9fe]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b:1::1]",
    "[2002:7f00:1::]",
    "[2001:0:7f00:1::]",
    "[fd00:ec2::254]",
    "[fc00::1]",
    "[fe80::1]",
    "[fec0::1]",
    "[ff02::1]",
    "[2001:db8::1]",
    "168.63.129.16",
    "192.0.0.192",
    "[64:ff9b::a9fe:a9fe]",
    "[fe80::1%25lo]",
]


@pytest.mark.parametrize("host", PRIVATE)
def test_an_address_that_is_not_public_is_never_connected_to(host: str) -> None:
    async def scenario() -> None:
        async with answering({"/": [answer(IMAGE)]}) as server:
            strict = UrlFetcher(UrlPolicy(ports=(server.port,), seconds=5))
            with pytest.raises(UrlRefusedError, match=r"not public|no valid URL"):
                await strict.fetch(f"http://{host}:{server.port}/")
            assert server.connections == 0

    run(scenario)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("file:///etc/passwd", "scheme 'file'"),
        ("ftp://example.com/a.jpg", "scheme 'ftp'"),
        ("gopher://example.com/", "scheme 'gopher'"),
        ("data:image/png;base64,AAAA", "scheme 'data'"),
        ("//example.com/a.jpg", "scheme ''"),
        ("/a.jpg", "scheme ''"),
        ("", "scheme ''"),
        ("http://user:secret@example.com/", "credentials"),
        ("http://user@example.com/", "credentials"),
        ("http://example.com:22/", "port 22"),
        ("http://example.com:8080/", "port 8080"),
        ("http://example.com:99999/", "valid URL"),
        ("http://", "no host|valid URL"),
        ("http://exa mple.com/", "cannot be fetched|valid URL"),
        ("http://example.com/\r\nX: y", "characters"),
        ("http://example.com\\@127.0.0.1/", "characters"),
        ("http://example.com/" + "a" * 3000, "characters"),
        ("http://[::1/", "valid URL"),
    ],
)
def test_what_is_no_plain_web_address_is_refused(url: str, words: str) -> None:
    with pytest.raises(UrlRefusedError, match=words):
        run(lambda: UrlFetcher(UrlPolicy()).fetch(url))


def test_the_secret_of_a_refused_url_is_not_repeated() -> None:
    with pytest.raises(UrlRefusedError) as caught:
        run(lambda: UrlFetcher(UrlPolicy()).fetch("http://user:secret@example.com/"))
    assert "secret" not in str(caught.value)


def test_an_image_is_fetched_and_nothing_of_the_caller_is_sent() -> None:
    async def scenario() -> None:
        async with answering({"/a.jpg?b=1": [answer(IMAGE, "Set-Cookie: a=b")]}) as server:
            assert await fetcher(server).fetch(server.url("/a.jpg?b=1#part")) == IMAGE
            await fetcher(server).fetch(server.url("/a.jpg?b=1"))
            heads = "".join(server.heads).lower()
            assert "accept-encoding: identity" in heads
            for name in ("cookie", "authorization", "referer", "x-request-id"):
                assert f"{name}:" not in heads

    run(scenario)


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with answering({"/": [answer(IMAGE)]}) as server, answering() as proxy:
            for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
                monkeypatch.setenv(name, proxy.url())
            assert await fetcher(server).fetch(server.url()) == IMAGE
            assert proxy.connections == 0

    run(scenario)


def test_a_name_is_judged_by_the_address_it_has_when_it_is_connected_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """DNS rebinding: the first answer is public, the next one is not."""
    answers = iter(["93.184.216.34", "127.0.0.1", "127.0.0.1"])
    looked_up = []

    def resolve(host: str, port: int, *rest: Any, **options: Any) -> list[Any]:
        address = next(answers)
        looked_up.append(address)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    async def scenario() -> None:
        async with answering({"/": [answer(IMAGE)]}) as server:
            monkeypatch.setattr(socket, "getaddrinfo", resolve)
            next(answers)  # whoever checked before got this one
            strict = UrlFetcher(UrlPolicy(ports=(server.port,)))
            with pytest.raises(UrlRefusedError, match="not public"):
                await strict.fetch(server.url(host="rebinding.example"))
            assert server.connections == 0
            assert looked_up == ["127.0.0.1"]

    run(scenario)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("http://127.0.0.2/", "not public"),
        ("http://169.254.169.254/latest/meta-data/", "not public"),
        ("http://[::1]/", "not public"),
        ("//169.254.169.254/", "not public"),
        ("file:///etc/passwd", "scheme 'file'"),
        ("http://127.0.0.1:22/", "port 22"),
        ("http://u:p@127.0.0.1/", "credentials"),
        ("/", "redirects"),
        ("/\xff\ufffe", "characters"),
        ("/" + "a" * 3000, "characters"),
    ],
)
def test_a_redirect_is_checked_like_a_url(target: str, words: str) -> None:
    async def scenario() -> None:
        async with answering({"/": [redirect(target)]}) as server:
            with pytest.raises(UrlRefusedError, match=words):
                await fetcher(server).fetch(server.url())

    run(scenario)


def test_a_few_redirects_are_followed() -> None:
    async def scenario() -> None:
        pages = {"/1": [redirect("/2")], "/2": [redirect("3")], "/3": [answer(IMAGE)]}
        async with answering(pages) as server:
            assert await fetcher(server, maximum_redirects=2).fetch(server.url("/1")) == IMAGE
            with pytest.raises(UrlRefusedError, match="more than 1 redirects"):
                await fetcher(server, maximum_redirects=1).fetch(server.url("/1"))

    run(scenario)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([answer(b"", length=5_000_000)], "larger than 1,000"),
        ([answer(bytes(1001))], "larger than 1,000"),
        ([CHUNKED, *[b"400\r\n" + bytes(1024) + b"\r\n"] * 6000], "larger than 1,000"),
        ([answer(gzip.compress(bytes(900_000)), "Content-Encoding: gzip")], "packed"),
        ([answer(b"", status="404 Not Found")], "status 404"),
        ([answer(b"private", status="500 Oops")], "status 500"),
        ([answer(b"no image", status="300 Multiple Choices")], "status 300"),
        ([b"HTTP/1.1 101 Switching Protocols\r\n\r\n"], "status 101"),
        ([b"HTTP/1.1 200 OK\r\n", *[b"A: " + bytes(4000) + b"\r\n"] * 200], "no usable answer"),
        ([b"HTTP/1.1 200 OK\r\nA: ", *[b"x" * 65536] * 50], "no usable answer"),
        ([answer(b"half", length=400)], "no usable answer"),
        ([b"no http at all\r\n\r\n"], "no usable answer"),
        ([b""], "no usable answer"),
    ],
)
def test_an_answer_that_is_too_large_packed_or_none_is_refused(
    parts: list[bytes], words: str
) -> None:
    async def scenario() -> None:
        async with answering({"/": parts}) as server:
            with pytest.raises(UrlRefusedError, match=words) as caught:
                await fetcher(server, maximum_bytes=1000).fetch(server.url())
            assert "private" not in str(caught.value)

    run(scenario)


def test_a_slow_drip_is_given_up_in_time() -> None:
    async def scenario() -> None:
        drops = [answer(b"", length=100), *[b"x"] * 100]
        async with answering({"/": drops}, pause=0.05) as server:
            with pytest.raises(UrlRefusedError, match=r"within 0.3 s"):
                await fetcher(server, seconds=0.3).fetch(server.url())

    run(scenario)


def test_nobody_listening_is_said_without_details() -> None:
    async def scenario() -> None:
        async with answering() as server:
            url, closed = server.url(), fetcher(server)
        with pytest.raises(UrlRefusedError, match="no usable answer"):
            await closed.fetch(url)

    run(scenario)


def test_http_can_be_refused() -> None:
    with pytest.raises(UrlRefusedError, match="accepted: https"):
        run(lambda: UrlFetcher(UrlPolicy(https_only=True)).fetch("http://example.com/"))
