"""Which addresses are public, and which hosts an operator's list lets through."""

import asyncio
import socket
import threading
import time
from typing import Any

import pytest
from pydantic import ValidationError

from darkroom.base.errors import UserError
from darkroom.serving.settings import read_settings
from darkroom.serving.url_images import UrlFetcher, UrlPolicy, UrlRefusedError, is_public


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8"]
)
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", ["64:ff9b::808:808", "2002:808:808::"])
def test_ipv4_inside_ipv6_is_judged_as_what_it_leads_to(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "168.63.129.16",  # Azure
        "192.0.0.192",  # Oracle
        "192.0.0.8",
        "192.88.99.1",
        "3fff::1",
        "5f00::1",
        "fe80::1%eth0",
        "::ffff:168.63.129.16",
        "64:ff9b::a9fe:a9fe",
        "2002:c000:c0::1",
        "2001:0:4136:e378::1",
        "::ffff:0:127.0.0.1",
    ],
)
def test_what_older_libraries_call_global_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    ("host", "is_allowed"),
    [
        ("images.example.com", True),
        ("b\xfccher.example", True),
        ("IMAGES.example.com.", True),
        ("cdn.example.org", True),
        ("a.b.example.org", True),
        ("example.org", False),
        ("evilexample.org", False),
        ("images.example.com.evil.net", False),
        ("example.com", False),
    ],
)
def test_only_allowed_hosts_are_asked_where_there_is_a_list(
    host: str, is_allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up = []

    def resolve(name: str, *rest: Any, **options: Any) -> list[Any]:
        looked_up.append(name)
        raise socket.gaierror("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    policy = UrlPolicy(
        allowed_hosts=("images.example.com", "*.example.org", "xn--bcher-kva.example")
    )
    with pytest.raises(UrlRefusedError, match="no usable answer" if is_allowed else "not among"):
        asyncio.run(UrlFetcher(policy).fetch(f"http://{host}/a.jpg"))
    assert bool(looked_up) == is_allowed


@pytest.mark.parametrize(
    "pattern",
    ["https://a.com", "a.com:80", "a.com/b", "*", "*.", "a.*.com", "[::1]", "b\xfccher.de"],
)
def test_a_pattern_that_could_match_nothing_is_refused(pattern: str) -> None:
    with pytest.raises(ValidationError, match="a host is a name such as"):
        UrlPolicy(allowed_hosts=(pattern,))
    with pytest.raises(UserError, match=r"DARKROOM_SERVE_URL_HOSTS is .*a host is a name"):
        read_settings({}, environment={"DARKROOM_SERVE_URL_HOSTS": pattern})


def test_a_pattern_is_matched_in_small_letters_and_without_its_last_dot() -> None:
    assert UrlPolicy(allowed_hosts=("*.Example.COM.",)).allowed_hosts == ("*.example.com",)


def test_a_look_up_that_never_ends_is_waited_for_neither_by_requests_nor_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    may_end = threading.Event()

    def resolve(host: str, port: int, *rest: Any, **options: Any) -> list[Any]:
        if host == "slow.example":
            may_end.wait(30)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", port))]

    async def scenario() -> None:
        fetcher = UrlFetcher(UrlPolicy(seconds=0.2))
        with pytest.raises(UrlRefusedError, match=r"within 0\.2 s"):
            await fetcher.fetch("http://slow.example/")
        with pytest.raises(UrlRefusedError, match="not public"):
            await fetcher.fetch("http://quick.example/")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    started = time.monotonic()
    try:
        asyncio.run(scenario())
        assert time.monotonic() - started < 10
    finally:
        may_end.set()
        for thread in threading.enumerate():
            if thread.name == "look-up":
                thread.join(10)
