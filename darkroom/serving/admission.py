"""How much a server takes on at once: beyond it, requests are turned away instead of queued.

A request is admitted once its body is there: one that is announced and never comes takes
nobody's place. What has arrived is in memory, and counted; where that is full, the body that
has been arriving for longest makes room.
"""

import asyncio
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from darkroom.serving.limits import (
    BODY_BYTES_PER_SECOND,
    BODY_SILENCE_SECONDS,
    not_now,
    refused,
    unsupported,
)
from darkroom.serving.monitoring import ServingMetrics

WAITING_PER_WORKER = 64

ENCODINGS = ("identity", "gzip", "deflate")
"""Of a body; what it unpacks to has the same limit as a body that is not packed."""

_WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
_LATE_SECONDS = 0.5
_PIECE_BYTES = 2**16
_MAX_PARTS = 1000
"""Of a gzip: each costs some ten microseconds, and may be empty."""
_BYTES = 256 * 2**20
"""Of all bodies together: 40 of the largest, thousands of photographs of usual size."""


@dataclass(eq=False)
class _Arrival:
    """A body, from its first byte to the answer."""

    patience: asyncio.Timeout
    size: int = 0
    """Bytes that it is counted with."""
    is_sent_away: bool = False


class Admission:
    """Counts the requests under way, and the bytes of their bodies. Belongs to one event loop."""

    def __init__(self, *, requests: int, body_bytes: int, metrics: ServingMetrics) -> None:
        self._requests = requests
        self._bytes = max(_BYTES, 4 * body_bytes)
        self._largest_body = body_bytes
        self._metrics = metrics
        self._arriving: dict[_Arrival, None] = {}  # in the order in which they began
        metrics.under_way.set_function(lambda: requests - self._requests)

    @asynccontextmanager
    async def admit(self, request: Request) -> AsyncIterator[bytes]:
        """The body, unpacked; while the block runs, the request is under way.

        Raises:
            HTTPException: 503 with Retry-After where there is no room, 413 too large, 408 too
                slow, 415 packed otherwise, 400 empty or not what its encoding says.
            ClientDisconnect: the client is gone.
        """
        window = _window(request)
        arrival = _Arrival(asyncio.timeout(None))
        try:
            body = await self._receive(request, arrival=arrival)
            if window:
                body = await self._unpack(body, window=window, arrival=arrival)
            if not body:
                raise refused("the body is empty; send the bytes of an image")
            if self._requests <= 0:
                raise self._turn_away("too many requests are waiting; try again later")
            self._requests -= 1
            try:
                yield body
            finally:
                self._requests += 1
        finally:
            self._bytes += arrival.size

    async def _receive(self, request: Request, *, arrival: _Arrival) -> bytes:
        too_large = refused(f"the body is larger than {self._largest_body:,} bytes", status=413)
        if int(request.headers.get("content-length", "0")) > self._largest_body:
            raise too_large
        body, loop = bytearray(), asyncio.get_running_loop()
        began = loop.time()
        self._arriving[arrival] = None
        try:
            is_more = True
            while is_more:
                least = began + len(body) / BODY_BYTES_PER_SECOND
                until = min(least, loop.time()) + BODY_SILENCE_SECONDS
                message = await _next_message(request, arrival=arrival, until=until)
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                chunk, is_more = message.get("body", b""), message.get("more_body", False)
                if len(body) + len(chunk) > self._largest_body:
                    raise too_large
                self._count(arrival, len(chunk))
                body += chunk
        except TimeoutError as error:
            if arrival.is_sent_away:
                raise self._turn_away("too many bodies are arriving; try again later") from error
            raise refused(
                f"the body does not arrive: after {BODY_SILENCE_SECONDS} s without a byte, or at "
                f"less than {BODY_BYTES_PER_SECOND:,} bytes per second, it is not waited for",
                status=408,
            ) from error
        finally:
            self._arriving.pop(arrival, None)
        return bytes(body)

    async def _unpack(self, body: bytes, *, window: int, arrival: _Arrival) -> bytes:
        self._count(arrival, self._largest_body)
        most = self._largest_body
        unpacked = await asyncio.to_thread(_unpacked, body, window=window, most=most)
        self._count(arrival, len(unpacked) - most - len(body))
        return unpacked

    def _count(self, arrival: _Arrival, size: int) -> None:
        """Count a body with more bytes, or fewer.

        Raises:
            HTTPException: 503, there is no room even without those that are slower.
        """
        while self._bytes < size:
            slowest = next((other for other in self._arriving if other is not arrival), None)
            if slowest is None:
                raise self._turn_away("too many large requests are waiting; try again later")
            del self._arriving[slowest]
            slowest.is_sent_away = True
            slowest.patience.reschedule(0)
            self._bytes += slowest.size
            slowest.size = 0
        self._bytes -= size
        arrival.size += size

    def _turn_away(self, message: str) -> Exception:
        self._metrics.turned_away.inc()
        return not_now(message)


async def _next_message(request: Request, *, arrival: _Arrival, until: float) -> Message:
    """The next part of a body.

    Raises:
        TimeoutError: it did not come in time.
    """
    loop = asyncio.get_running_loop()
    while True:
        try:
            async with asyncio.timeout_at(until) as arrival.patience:
                return await request.receive()
        except TimeoutError:
            if arrival.is_sent_away or loop.time() - until < _LATE_SECONDS:
                raise
            until = loop.time() + _LATE_SECONDS  # this server was late, perhaps not the client


def _window(request: Request) -> int:
    """zlib's name for how the body is packed; 0: it is not.

    Raises:
        HTTPException: 415 names what is accepted.
    """
    encoding = ", ".join(request.headers.getlist("content-encoding")).strip().lower()
    if encoding in ("", "identity"):
        return 0
    if encoding not in _WINDOWS:
        message = f"content encoding {encoding!r:.100}; accepted are {', '.join(ENCODINGS)}"
        raise unsupported(message, header="Accept-Encoding", accepted=ENCODINGS)
    return _WINDOWS[encoding]


def _unpacked(body: bytes, *, window: int, most: int) -> bytes:
    """All of it; a gzip may have several parts.

    Raises:
        HTTPException: 413 larger than `most`, 400 damaged.
    """
    unpacked, rest, parts = bytearray(), memoryview(body), 0
    while rest:
        parts += 1
        if parts > (_MAX_PARTS if window > zlib.MAX_WBITS else 1):
            raise refused(f"the packed body has more than {parts - 1:,} parts")
        stream = zlib.decompressobj(window)
        while not stream.eof:  # in pieces: what is behind a part is copied
            piece = rest[:_PIECE_BYTES]
            if not piece:
                raise refused("the packed body is cut off")
            try:
                unpacked += stream.decompress(piece, most + 1 - len(unpacked))
            except zlib.error as error:
                message = f"the body is not packed as its Content-Encoding says: {error}"
                raise refused(message) from error
            if len(unpacked) > most:
                raise refused(f"the body unpacks to more than {most:,} bytes", status=413)
            rest = rest[len(piece) - len(stream.unused_data) :]
    return bytes(unpacked)
