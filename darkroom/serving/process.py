"""The process that serves: settings, models, HTTP server and data capture put together."""

import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Literal

import uvicorn
from starlette.applications import Starlette

from darkroom.prediction import Predictor, available_cores
from darkroom.serving.app import Surroundings, create_app, create_multi_model_app
from darkroom.serving.decoders import Decoders
from darkroom.serving.decoding_process import DecoderSource
from darkroom.serving.invocations import OnExchange, ignore_exchange
from darkroom.serving.journal import Journal
from darkroom.serving.limits import MOST_CONNECTIONS, RUN_SECONDS
from darkroom.serving.logs import EventLog, unread_output
from darkroom.serving.memory import default_decoding_bytes, use_one_arena
from darkroom.serving.metrics import ServingMetrics
from darkroom.serving.model_names import ModelNames
from darkroom.serving.parent_watch import end_with_parent
from darkroom.serving.program import Task
from darkroom.serving.protocol import ImpatientProtocol
from darkroom.serving.settings import ServingSettings, read_settings
from darkroom.serving.supervisor import handle_signals
from darkroom.serving.witness import Witness

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
        around = Surroundings(
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
    task: Task, *, around: Surroundings, journal: Journal | None
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
    from darkroom.serving.capturing import capturing

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
            http=ImpatientProtocol,
            ws="none",
            access_log=False,
            log_level="error",
            server_header=False,
            proxy_headers=False,
            limit_concurrency=MOST_CONNECTIONS,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_DRAIN_SECONDS,
        )
    )


def _end(signum: int, frame: object) -> None:
    """End with code 0: uvicorn has drained by the time it hands the signal on."""
    raise SystemExit(0)
