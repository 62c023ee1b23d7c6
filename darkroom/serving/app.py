"""The HTTP side of `serve`: SageMaker's hosting contract as a Starlette application.

    GET  /ping           200 once the model is loaded and has classified an image
    POST /invocations    an image as the body → its class, probability and top classes;
                         how many: ?top_k=3, or top_k=3 in SageMaker's CustomAttributes

Errors are JSON, {"error": …}, and say what is accepted instead.
"""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from darkroom.images import ImageError
from darkroom.prediction import Predictor

MAXIMUM_BODY_BYTES = 6 * 2**20
"""Of SageMaker's real-time endpoints (InvokeEndpoint's Body)."""

ACCEPTED_TYPES = (
    "image/jpeg",
    "image/png",
    "image/webp",
    "image/bmp",
    "application/x-image",
    "application/octet-stream",
)
"""What the body really is, is judged by its content."""

_DEFAULT_TOP_K = 5
_CUSTOM_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
_BODY_SECONDS = 30
_WAITING_PER_WORKER = 64
_ROUTES = "GET /ping and POST /invocations"


class _Service:
    """Answers requests with one model, decoding and predicting off the event loop."""

    def __init__(self, predictor: Predictor, *, workers: int) -> None:
        self._predictor = predictor
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="predict")
        self._room = workers * _WAITING_PER_WORKER

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        yield
        self._pool.shutdown()

    async def ping(self, request: Request) -> Response:
        return JSONResponse({"status": "healthy", "model_version": self._version})

    async def invoke(self, request: Request) -> Response:
        if self._room <= 0:
            raise HTTPException(503, "too many requests are waiting", {"Retry-After": "1"})
        self._room -= 1
        try:
            return await self._answer(request)
        finally:
            self._room += 1

    async def _answer(self, request: Request) -> Response:
        _check_type(request)
        top_k = _top_k(request)
        body = await _read(request)
        loop = asyncio.get_running_loop()
        try:
            predict = partial(self._predict, body, top_k=top_k)
            return JSONResponse(await loop.run_in_executor(self._pool, predict))
        except ImageError as error:
            raise HTTPException(400, str(error)) from error

    def _predict(self, body: bytes, *, top_k: int) -> dict[str, object]:
        batch = np.expand_dims(self._predictor.prepare(body), 0)
        best = self._predictor.top_k(self._predictor.probabilities(batch)[0], k=top_k)
        return {
            **best[0].model_dump(),
            "top_k": [item.model_dump() for item in best],
            "model_version": self._version,
        }

    @property
    def _version(self) -> str:
        return self._predictor.metadata.version


def create_app(predictor: Predictor, *, workers: int = 2) -> Starlette:
    """The application for one loaded model, which has to classify a blank image first.

    Args:
        workers: requests that are decoded and predicted at once.

    Raises:
        DarkroomError: the network cannot be run.
    """
    predictor.self_test()
    service = _Service(predictor, workers=workers)
    return Starlette(
        routes=[
            Route("/ping", service.ping, methods=["GET"]),
            Route("/invocations", service.invoke, methods=["POST"]),
        ],
        exception_handlers={
            HTTPException: _http_error,
            ClientDisconnect: _client_gone,
            Exception: _internal_error,
        },
        lifespan=service.lifespan,
    )


def _check_type(request: Request) -> None:
    header = request.headers.get("content-type", "application/octet-stream")
    if header.partition(";")[0].strip().lower() not in ACCEPTED_TYPES:
        raise HTTPException(
            415, f"content type {header!r}; accepted are {', '.join(ACCEPTED_TYPES)}"
        )


def _top_k(request: Request) -> int:
    text = request.query_params.get("top_k", _custom_top_k(request))
    if not (text.isascii() and text.isdecimal() and int(text[:9]) >= 1):
        raise HTTPException(400, f"top_k is {text!r}; it must be a whole number, at least 1")
    return int(text[:9])


def _custom_top_k(request: Request) -> str:
    """As `top_k=10` in SageMaker's CustomAttributes: InvokeEndpoint has no query."""
    name, _, value = request.headers.get(_CUSTOM_ATTRIBUTES, "").strip().partition("=")
    return value if name == "top_k" else str(_DEFAULT_TOP_K)


async def _read(request: Request) -> bytes:
    """The body, read no further than the limit."""
    if int(request.headers.get("content-length", "0")) > MAXIMUM_BODY_BYTES:
        raise _too_large()
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAXIMUM_BODY_BYTES:
                    raise _too_large()
    except TimeoutError as error:
        raise HTTPException(408, f"the body did not arrive within {_BODY_SECONDS} s") from error
    if not body:
        raise HTTPException(400, "the body is empty; send the bytes of an image")
    return bytes(body)


def _too_large() -> HTTPException:
    return HTTPException(413, f"the body is larger than {MAXIMUM_BODY_BYTES:,} bytes")


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 — as registered
    message = error.detail
    if error.status_code in (404, 405):
        message = f"no {request.method} {request.url.path} here; there are {_ROUTES}"
    return JSONResponse({"error": message}, status_code=error.status_code, headers=error.headers)


async def _client_gone(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # nobody reads it


async def _internal_error(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "internal error; see the server's log"}, status_code=500)
