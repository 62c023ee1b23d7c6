"""uvicorn's HTTP protocol with the limits that it lacks: on a head's size and time.

Without them, a client that sends a header byte a minute keeps its connection for ever, and
one that sends headers without end fills the memory.
"""

import asyncio
from collections import Counter
from contextlib import suppress
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from darkroom.serving.invocations import UNDER_WAY
from darkroom.serving.limits import (
    HEADER_SECONDS,
    MAXIMUM_HEADER_BYTES,
    MOST_CONNECTIONS_OF_ONE_ADDRESS,
)

_DISCARDED_BYTES = 64 * 2**20
"""Of a body that goes on after its request was refused; then the connection is closed."""

_NO_UPGRADE = (
    b"this server speaks HTTP/1.1 alone, and reads no body behind the header Upgrade: leave it out "
    b"(Java's HttpClient: Version.HTTP_1_1)"
)

_ANSWER = (
    b"HTTP/1.1 %s\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\nconnection: close\r\n\r\n%s"
)


class ImpatientProtocol(HttpToolsProtocol):
    """Closes connections whose request's head takes too long, or is too large.

    And those of an address that has too many: the places are for all.
    """

    addresses: ClassVar[Counter[str]] = Counter()
    """Connections by the address that they come from; of all servers of the process."""
    _address = ""

    _under_way: set["asyncio.Task[Any]"]
    _patience: asyncio.TimerHandle | None = None
    _is_in_head = True
    _is_refusing = False
    _received_bytes = 0
    _parsed_bytes = 0
    _discarded_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected: its first head is awaited."""
        super().connection_made(transport)
        self._under_way = set()
        self._address = self.client[0] if self.client else ""
        self.addresses[self._address] += 1
        if self.addresses[self._address] > MOST_CONNECTIONS_OF_ONE_ADDRESS:
            self._close(b"503 Service Unavailable", b"too many connections from this address")
        else:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is awaited any more, and nobody awaits an answer."""
        self._stop_waiting()
        while self._under_way:
            self._under_way.pop().cancel()
        self.addresses[self._address] -= 1
        if not self.addresses[self._address]:
            with suppress(KeyError):
                del self.addresses[self._address]
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser; a head that does not end never reaches `on_headers_complete`."""
        if self._is_over:
            return
        super().data_received(data)
        self._received_bytes += len(data)
        if self._is_in_head and self._received_bytes > MAXIMUM_HEADER_BYTES:
            self._refuse_head()

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self.scope[UNDER_WAY] = self._under_way  # type: ignore[literal-required]
        self._is_in_head = True
        self._received_bytes = self._parsed_bytes = self._discarded_bytes = 0
        if self._patience is None:
            self._await_head()

    def on_url(self, url: bytes) -> None:
        """A part of the request line."""
        self._parsed_bytes += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._parsed_bytes += len(name) + len(value)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is there; how long the body may take is the application's to say."""
        self._stop_waiting()
        self._is_in_head = False
        is_upgrade = self.parser.should_upgrade()
        if self._is_over:
            return
        if self._parsed_bytes > MAXIMUM_HEADER_BYTES:
            self._refuse_head()
        elif is_upgrade and self._has_body():  # the parser stops behind the head
            self._close(b"400 Bad Request", _NO_UPGRADE)
        else:
            super().on_headers_complete()
            if is_upgrade:
                self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """A part of the body, which nobody reads any more once the request is refused."""
        if self._is_over:
            return
        if self.cycle.response_complete:
            self._discarded_bytes += len(body)
            if self._discarded_bytes > _DISCARDED_BYTES:
                self.transport.close()
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        if self._is_over:
            return
        super().on_message_complete()
        if not self.pipeline:
            self.flow.resume_reading()  # a large body has stopped it: else no end would be seen

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP is told so in JSON, as all errors are."""
        self._close(b"400 Bad Request", b"this is no valid HTTP/1.1 request")

    def _refuse_head(self) -> None:
        self._close(b"431 Request Header Fields Too Large", b"the headers are too large")

    def _await_head(self) -> None:
        self._patience = self.loop.call_later(HEADER_SECONDS, self._lose_patience)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _lose_patience(self) -> None:
        self._patience = None
        self._close(b"408 Request Timeout", b"the request's head did not arrive in time")

    @property
    def _is_over(self) -> bool:
        """Whether nothing more is read."""
        return self._is_refusing or self.transport.is_closing()

    def _has_body(self) -> bool:
        return any(
            name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0 "))
            for name, value in self.headers
        )

    def _close(self, status: bytes, reason: bytes) -> None:
        """Refuse what is arriving, and close; a whole request before it is answered first."""
        if self._is_over:
            return
        self._is_refusing = True
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if not cycle.more_body:
                cycle.keep_alive = False
                return
            if cycle.response_started or self.pipeline:
                self.transport.close()
                return
            cycle.disconnected = True  # its body is what cannot be read
            cycle.message_event.set()
        body = b'{"error":"%s"}' % reason
        self.transport.write(_ANSWER % (status, len(body), body))
        self.transport.close()
