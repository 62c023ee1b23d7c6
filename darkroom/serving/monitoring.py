"""What a server counts for Prometheus, and the middleware that logs and counts every request."""

import re
import time
import uuid
from collections.abc import MutableMapping

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from darkroom.serving.logs import EventLog

# --- metrics ---

CONTENT_TYPE = CONTENT_TYPE_LATEST

MAX_MODELS = 50
"""With metrics of their own: 1 kB of the page each."""

OTHER_MODELS = "(other)"
"""No model can be called so."""

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class ServingMetrics:
    """Counters of one server; a registry of its own, so that several can live in a process."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._models = set[str]()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "darkroom_requests",
            "Requests by route and status.",
            ("route", "status"),
            registry=registry,
        )
        self.request_seconds = Histogram(
            "darkroom_request_seconds",
            "Seconds from a request's head to the end of its answer, by route.",
            ("route",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.images = Counter(
            "darkroom_images", "Images classified, by model.", ("model",), registry=registry
        )
        self.decode_seconds = Histogram(
            "darkroom_decode_seconds",
            "Seconds to decode and preprocess an image.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.run_seconds = Histogram(
            "darkroom_run_seconds",
            "Seconds that the network takes for a batch, by model.",
            ("model",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch_size = Histogram(
            "darkroom_batch_size", "Images in a batch.", buckets=_SIZES, registry=registry
        )
        self.under_way = Gauge(
            "darkroom_requests_under_way", "Requests that are being answered.", registry=registry
        )
        self.turned_away = Counter(
            "darkroom_requests_turned_away",
            "Requests answered 503 since too many were under way.",
            registry=registry,
        )
        self.models_loaded = Gauge("darkroom_models_loaded", "Models in memory.", registry=registry)
        self.models_bytes = Gauge(
            "darkroom_models_bytes", "Memory that the models are counted with.", registry=registry
        )
        self.evictions = Counter(
            "darkroom_model_evictions",
            "Models taken out of memory to make room for another.",
            registry=registry,
        )
        self.restarts = Gauge(
            "darkroom_restarts", "Times the model process was started again.", registry=registry
        )
        self.log_lines_dropped = Gauge(
            "darkroom_log_lines_dropped",
            "Log lines lost, as nobody has read the server's output.",
            registry=registry,
        )
        self.captured = Counter(
            "darkroom_captured", "Requests stored by data capture.", registry=registry
        )
        self.capture_lost = Counter(
            "darkroom_capture_lost",
            "Requests that data capture could not store.",
            registry=registry,
        )

    def model_label(self, name: str) -> str:
        """The label of a model's metrics: its name for the first of them, then one for all.

        Names are the callers' to invent, and each would stay for ever.
        """
        if name in self._models or len(self._models) < MAX_MODELS:
            self._models.add(name)
            return name
        return OTHER_MODELS

    def text(self) -> bytes:
        """All of it in Prometheus's text format."""
        return generate_latest(self._registry)


# --- middleware ---
# Around every request: its id, its log line, its place in the metrics.

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


class RequestLogMiddleware:
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
