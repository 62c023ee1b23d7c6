"""Bytes that are no HTTP, or lie about what follows."""

from dataclasses import dataclass

_UNFINISHED = (
    *("too large", "half a body", "no end", "a number too large", "another encoding"),
    *("line ends alone", "HTTP/0.9"),
)
"""After these a server may well wait for more."""

_POST = b"POST /invocations HTTP/1.1\r\nHost: localhost\r\n"


@dataclass(frozen=True)
class RawCase:
    """What is written to a connection as it is."""

    kind: str
    name: str
    content: bytes
    is_ended: bool = False
    """Whether the client then says that it will send no more; else it is silent."""


def raw_cases() -> list[RawCase]:
    """Those that are answered at once, or when the client ends."""
    return [
        RawCase(kind, name, content, is_ended=name in _UNFINISHED)
        for kind, cases in (("length", _lengths()), ("chunks", _chunks()), ("head", _heads()))
        for name, content in cases.items()
    ]


def slow_cases() -> list[RawCase]:
    """Those whose clients never go on: the server has to lose patience."""
    return [
        RawCase("slow", "nothing is sent", b""),
        RawCase("slow", "half a request line", b"POST /invoc"),
        RawCase("slow", "half a head", _POST + b"X-A: b"),
        RawCase("slow", "a head without end", _POST + b"X-A: b\r\n"),
    ] * 5


def _lengths() -> dict[str, bytes]:
    return {
        "too large": _POST + b"Content-Length: 100\r\n\r\nabc",
        "too small": _POST + b"Content-Length: 2\r\n\r\nabcdef\r\n\r\n",
        "far too large": _POST + b"Content-Length: 99999999999\r\n\r\nabc",
        "beyond 64 bits": _POST + b"Content-Length: 99999999999999999999999999\r\n\r\nabc",
        "negative": _POST + b"Content-Length: -1\r\n\r\nabc",
        "no number": _POST + b"Content-Length: abc\r\n\r\nabc",
        "with a sign": _POST + b"Content-Length: +3\r\n\r\nabc",
        "hexadecimal": _POST + b"Content-Length: 0x3\r\n\r\nabc",
        "empty": _POST + b"Content-Length: \r\n\r\nabc",
        "twice, the same": _POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        "twice, another": _POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "a list": _POST + b"Content-Length: 3, 3\r\n\r\nabc",
        "none": _POST + b"\r\nabc",
        "half a body": _POST + b"Content-Type: image/png\r\nContent-Length: 9000\r\n\r\n\x89PNG",
    }


def _chunks() -> dict[str, bytes]:
    chunked = _POST + b"Transfer-Encoding: chunked\r\n"
    return {
        "with a length": chunked + b"Content-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "no number": chunked + b"\r\nxyz\r\nabc\r\n0\r\n\r\n",
        "a negative number": chunked + b"\r\n-3\r\nabc\r\n0\r\n\r\n",
        "beyond 64 bits": chunked + b"\r\nfffffffffffffffffff\r\nabc",
        "a number too large": chunked + b"\r\nffff\r\nabc",
        "longer than said": chunked + b"\r\n1\r\nabcdef\r\n0\r\n\r\n",
        "no end": chunked + b"\r\n3\r\nabc\r\n",
        "an extension of 100 KB": chunked + b"\r\n3;" + b"x" * 100_000 + b"\r\nabc\r\n0\r\n\r\n",
        "10,000 single bytes": chunked + b"\r\n" + b"1\r\nx\r\n" * 10_000 + b"0\r\n\r\n",
        "7 MB": chunked + b"\r\n" + (b"10000\r\n" + bytes(2**16) + b"\r\n") * 112 + b"0\r\n\r\n",
        "encoded twice": _POST
        + b"Transfer-Encoding: chunked, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "another encoding": _POST + b"Transfer-Encoding: gzip\r\n\r\nabc",
        "a space before the colon": _POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    }


def _heads() -> dict[str, bytes]:
    return {
        "10,000 bytes of one header": _POST + b"X-A: " + b"b" * 10_000 + b"\r\n\r\n",
        "100,000 bytes of one header": _POST + b"X-A: " + b"b" * 100_000 + b"\r\n\r\n",
        "10,000 headers": _POST + b"X-A: b\r\n" * 10_000 + b"\r\n",
        "a header's name of 100,000": _POST + b"X" * 100_000 + b": b\r\n\r\n",
        "a path of 100,000": b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "a query of 10,000": b"GET /ping?"
        + b"x" * 10_000
        + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "no method": b"/ping HTTP/1.1\r\n\r\n",
        "an unknown method": b"BREW /ping HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "HTTP/9.9": b"GET /ping HTTP/9.9\r\nHost: localhost\r\n\r\n",
        "HTTP/0.9": b"GET /ping\r\n",
        "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        "zeros": bytes(10_000),
        "line ends alone": b"\r\n" * 1000,
        "no host": b"GET /nothing HTTP/1.1\r\n\r\n",
        "two hosts": b"GET /nothing HTTP/1.1\r\nHost: localhost\r\nHost: 127.0.0.1\r\n\r\n",
        "a null byte in a header": _POST + b"X-A: \0\r\nContent-Length: 0\r\n\r\n",
        "a folded header": _POST + b"X-A: b\r\n c\r\nContent-Length: 0\r\n\r\n",
        "another's URL": b"GET http://169.254.169.254/latest HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "a tunnel": b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "a path above": b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "a path of bytes": b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "websocket": b"GET /ping HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Key: eA==\r\n\r\n",
        "expects what is not": _POST + b"Expect: magic\r\nContent-Length: 0\r\n\r\n",
    }
