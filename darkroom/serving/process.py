"""The process that serves: settings, models, HTTP server and data capture put together."""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from typing import Any, ClassVar, Literal

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from darkroom.base.processes import end_with_parent
from darkroom.models.prediction import Predictor, available_cores
from darkroom.serving.app import ServerContext, create_app, create_multi_model_app
from darkroom.serving.decoder_process import DecoderSource
from darkroom.serving.decoders import Decoders
from darkroom.serving.invocations import UNDER_WAY, OnExchange, ignore_exchange
from darkroom.serving.limits import (
    HEADER_SECONDS,
    MAX_CONNECTIONS,
    MAX_CONNECTIONS_OF_ONE_ADDRESS,
    MAX_HEADER_BYTES,
    RUN_SECONDS,
)
from darkroom.serving.logs import EventLog, unread_output
from darkroom.serving.memory import default_decoding_bytes, use_one_arena
from darkroom.serving.model_names import ModelNames
from darkroom.serving.monitoring import ServingMetrics
from darkroom.serving.settings import ServingSettings, read_settings
from darkroom.serving.supervisor import Journal, Task, Witness, handle_signals

# --- protocol ---
# uvicorn's HTTP protocol with the limits that it lacks: on a head's size and time.
#
# Without them, a client that sends a header byte a minute keeps its connection for ever, and
# one that sends headers without end fills the memory.

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


class HeaderTimeoutProtocol(HttpToolsProtocol):
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
        if self.addresses[self._address] > MAX_CONNECTIONS_OF_ONE_ADDRESS:
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
        if self._is_in_head and self._received_bytes > MAX_HEADER_BYTES:
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
        if self._parsed_bytes > MAX_HEADER_BYTES:
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


# --- process ---

_DRAIN_SECONDS = 25
"""SageMaker kills a container 30 s after SIGTERM."""

_KEEP_ALIVE_SECONDS = 65
"""Longer than load balancers wait (60), so that it is they who close."""

_SOURCE_ENDED = 70
_QUIET = ("python_multipart",)
"""Loggers of libraries that repeat what callers sent."""


def serve_task(
    task: Task,
    *,
    listening: socket.socket,
    journal: Journal | None,
    source: DecoderSource,
    witness: Witness,
    restarts: int,
    ready: Callable[[], None],
) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Args:
        journal: with several models, where those that are registered are kept.
        source: makes the processes that decode images.
        witness: told of the requests under way.
        restarts: how often this process was started again.
        ready: called once the server is about to answer.

    Raises:
        DarkroomError: settings or model are unusable.
    """
    use_one_arena()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    end_with_parent()
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    settings = _settings(task)
    log, metrics = EventLog(settings.log or "text"), ServingMetrics()
    with (
        unread_output(log) as dropped,
        _capturing(settings, log=log, metrics=metrics) as on_exchange,
    ):
        metrics.log_lines_dropped.set_function(dropped)
        around = ServerContext(
            settings,
            log=log,
            metrics=metrics,
            witness=witness,
            decoders=_decoders(settings, source=source, witness=witness, log=log),
            is_local=ip_address(listening.getsockname()[0]).is_loopback,
            restarts=restarts,
            on_exchange=on_exchange,
            on_start=handle_signals,
        )
        app, version = _application(task, around=around, journal=journal)
        ready()  # first: who has read the announcement may count on being served, crash or not
        _announce(task, version=version, listening=listening, log=log)
        _server(app).run(sockets=[listening])


def _settings(task: Task) -> ServingSettings:
    """With what depends on whether this is a container filled in."""
    settings = read_settings(task.flags, environment=os.environ)
    kind: Literal["json", "text"] = "json" if task.in_container else "text"
    page = not task.in_container if settings.page is None else settings.page
    return settings.model_copy(update={"log": settings.log or kind, "page": page})


def _decoders(
    settings: ServingSettings, *, source: DecoderSource, witness: Witness, log: EventLog
) -> Decoders:
    def begin_anew() -> None:
        """Let the supervisor start another process: this one cannot make a source safely."""
        log.write("source_ended")
        sys.stdout.close()  # hands on what waits, where somebody reads
        witness.clear()  # no request is to blame
        os._exit(_SOURCE_ENDED)

    return Decoders(
        source,
        workers=settings.workers or available_cores(),
        memory=settings.decode_memory_mb * 2**20 or default_decoding_bytes(),
        content_bytes=settings.maximum_body_bytes,
        note=log.write,
        on_source_ended=begin_anew,
        seconds=settings.decode_seconds,
    )


def _application(
    task: Task, *, around: ServerContext, journal: Journal | None
) -> tuple[Starlette, str]:
    """The application, and the model's version and engine."""
    if journal is None:
        # One thread inside the network for each image that is answered: threads of one image
        # wait for each other, and lose as soon as anything else runs on the machine.
        predictor = Predictor.load(
            task.place, threads=1, engine=around.settings.engine, seconds=RUN_SECONDS
        )
        version = f"{predictor.metadata.version}, {predictor.engine.name}"
        return create_app(predictor, surroundings=around), version
    announced, left_out = journal.read(), dict[str, str]()
    if not task.in_container:
        present, left_out = ModelNames(task.place).present()
        announced = {name: name for name in present} | announced
    app = create_multi_model_app(
        task.place,
        surroundings=around,
        announced=announced,
        left_out=left_out,
        on_change=journal.write,
    )
    return app, f"of {len(announced)} models"


@contextmanager
def _capturing(
    settings: ServingSettings, *, log: EventLog, metrics: ServingMetrics
) -> Iterator[OnExchange]:
    if not settings.capture:
        yield ignore_exchange
        return
    from darkroom.serving.capture import capturing

    with capturing(settings, log=log, metrics=metrics) as on_exchange:
        yield on_exchange


def _announce(task: Task, *, version: str, listening: socket.socket, log: EventLog) -> None:
    host, port = listening.getsockname()[:2]
    url = f"http://{host}:{port}"
    if log.kind == "json":
        log.write("serving", model=str(task.place), version=version, url=url)
    else:
        print(f"serving {str(task.place)!r} (version {version}) on {url}", flush=True)


def _server(app: Starlette) -> uvicorn.Server:
    return uvicorn.Server(
        uvicorn.Config(
            app,
            loop="uvloop",
            http=HeaderTimeoutProtocol,
            ws="none",
            access_log=False,
            log_level="error",
            server_header=False,
            proxy_headers=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_DRAIN_SECONDS,
        )
    )


def _end(signum: int, frame: object) -> None:
    """End with code 0: uvicorn has drained by the time it hands the signal on."""
    raise SystemExit(0)
