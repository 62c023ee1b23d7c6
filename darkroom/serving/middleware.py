"""Around every request: its id, its log line, its place in the metrics."""

import re
import time
import uuid
from collections.abc import MutableMapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from darkroom.serving.logs import EventLog
from darkroom.serving.metrics import ServingMetrics

REQUEST_ID = "X-Request-Id"

_GIVEN_IDS = ("x-request-id", "x-amzn-sagemaker-inference-id")
_USABLE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_UNWATCHED = ("/ping", "/metrics")
"""Asked every few seconds by machines: counted, not logged."""

_ROUTES = (
    (re.compile(r"/(ping|invocations|metrics|models|execution-parameters)?"), None),
    (re.compile(r"/models/.+/invoke"), "/models/{name}/invoke"),
    (re.compile(r"/models/.+"), "/models/{name}"),
)


class Watching:
    """ASGI middleware: answers carry X-Request-Id, the caller's where it is usable."""

    def __init__(self, app: ASGIApp, *, log: EventLog, metrics: ServingMetrics) -> None:
        self._app = app
        self._log = log
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = scope["request_id"] = _request_id(Headers(scope=scope))
        status = 500  # where the application answers nothing

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_marked)
        finally:
            self._note(scope, status=status, seconds=time.perf_counter() - started)

    def _note(self, scope: MutableMapping[str, object], *, status: int, seconds: float) -> None:
        path = str(scope["path"])
        route = _route(path)
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        if path not in _UNWATCHED:
            self._log.write(
                "request",
                request_id=scope["request_id"],
                method=scope["method"],
                route=route,
                status=status,
                ms=round(seconds * 1000, 2),
            )


def _request_id(headers: Headers) -> str:
    given = next((headers[name] for name in _GIVEN_IDS if name in headers), "")
    return given if _USABLE_ID.fullmatch(given) else uuid.uuid4().hex


def _route(path: str) -> str:
    """One of a few: paths are the callers' to invent."""
    for pattern, template in _ROUTES:
        if pattern.fullmatch(path):
            return template or path
    return "other"
