"""The HTTP side of `serve`: SageMaker's hosting contract as Starlette applications.

    GET  /ping                   200 once the model is loaded and has proved itself
    POST /invocations            images → classes; content.py, answers.py and answers.py say how
    GET  /execution-parameters   what batch transform should ask for
    GET  /metrics                for Prometheus
    GET  /                       a page to try it, where that is switched on
    …/models…                    several models; multi_model.py

Errors are JSON, {"error": …}, and say what is accepted instead.
"""

import asyncio
import base64
import hashlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from darkroom.base.errors import DarkroomError, UserError
from darkroom.base.processes import give_back_freed
from darkroom.images import REQUESTED_IMAGES, ImageError
from darkroom.models.prediction import Predictor, available_cores
from darkroom.serving.admission import WAITING_PER_WORKER, Admission
from darkroom.serving.content import FetchUrls
from darkroom.serving.decoders import Decoders
from darkroom.serving.hosted_model import HostedModel, Pools
from darkroom.serving.invocations import Invocations, OnExchange, ignore_exchange, refuse_urls
from darkroom.serving.limits import RUN_SECONDS, refused
from darkroom.serving.logs import EventLog
from darkroom.serving.memory import default_limit
from darkroom.serving.model_names import ModelNames
from darkroom.serving.monitoring import CONTENT_TYPE, RequestLogMiddleware, ServingMetrics
from darkroom.serving.multi_model import TARGET_MODEL, Models, ModelsApi
from darkroom.serving.origins import OriginCheck, OriginPolicy
from darkroom.serving.settings import ServingSettings
from darkroom.serving.supervisor import Witness

# --- page ---
# The page at / of a local server: drop an image, see the classes and how long it took.

_PAGE = Path(__file__).with_name("page.html")
_SETTINGS = "{{settings}}"


def page_response(*, urls_allowed: bool, models: bool, maximum_bytes: int) -> Response:
    """The page; it loads nothing from elsewhere and runs no script but its own.

    Args:
        urls_allowed: whether it offers to fetch an image by URL.
        models: whether it offers a choice of models, asked of GET /models.
        maximum_bytes: of a request; the page makes larger images smaller.
    """
    page, policy = _page(urls_allowed=urls_allowed, models=models, maximum_bytes=maximum_bytes)
    return Response(
        page,
        media_type="text/html",
        headers={
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-cache",
        },
    )


@cache
def _page(*, urls_allowed: bool, models: bool, maximum_bytes: int) -> tuple[str, str]:
    """The page with its settings, and a policy that names its script and style by hash."""
    settings = json.dumps(
        {
            "urls": urls_allowed,
            "models": models,
            "bytes": maximum_bytes,
            "formats": ", ".join(REQUESTED_IMAGES.formats),
        }
    )
    page = _PAGE.read_text(encoding="utf-8").replace(_SETTINGS, settings)
    policy = {
        "default-src": "'none'",
        "script-src": _hashes("script", page=page),
        "style-src": _hashes("style", page=page),
        "img-src": "blob: data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return page, "; ".join(f"{name} {value}" for name, value in policy.items())


def _hashes(tag: str, *, page: str) -> str:
    """Of the content of an element, as CSP wants it: without a byte more or less."""
    contents = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    digests = [hashlib.sha256(content.encode()).digest() for content in contents]
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)


# --- images behind URLs ---
# The images behind the URLs of one request.

MAX_URLS = 16
"""In one request: each may be as large as a whole body."""

_FETCHED_AT_ONCE = 4
_BYTES = 32 * 2**20
"""Of all of them together."""

Fetch = Callable[[str], Awaitable[bytes]]


async def fetch_images(urls: tuple[str, ...], *, fetch: Fetch) -> list[bytes]:
    """The bodies, in order.

    Raises:
        HTTPException: 413 for too many, or too much.
        ImageError: one is refused or cannot be fetched; of several, the message says which.
    """
    if len(urls) > MAX_URLS:
        message = f"{len(urls)} URLs in one request; at most {MAX_URLS} are fetched"
        raise refused(message, status=413)
    turn, fetched = asyncio.Semaphore(_FETCHED_AT_ONCE), 0

    async def fetch_one(number: int, url: str) -> bytes:
        nonlocal fetched
        async with turn:
            if fetched > _BYTES:
                raise refused(f"the images are larger than {_BYTES:,} bytes together", status=413)
            try:
                content = await fetch(url)
            except ImageError as error:
                raise error if len(urls) == 1 else ImageError(f"image {number}: {error}") from error
            fetched += len(content)
            return content

    tasks = [asyncio.create_task(fetch_one(number, url)) for number, url in enumerate(urls, 1)]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:  # one failed: the others' images are not wanted any more
            task.cancel()


# --- app ---

LEFT = 499
"""Status of a request whose client has left, as nginx has it."""

_MEGABYTE = 2**20
_SECONDS_BETWEEN_TIDYING = 20
_SINGLE = "GET /ping, POST /invocations, GET /execution-parameters and GET /metrics"
_SEVERAL = f"{_SINGLE}, and /models, /models/<name> and /models/<name>/invoke"


@dataclass(frozen=True)
class ServerContext:
    """What an application is given by the program that runs it."""

    settings: ServingSettings = field(default_factory=ServingSettings)
    log: EventLog = field(default_factory=lambda: EventLog("none"))
    metrics: ServingMetrics = field(default_factory=ServingMetrics)
    decoders: Decoders | None = None
    """Processes that decode images; none: threads do."""
    witness: Witness = field(default_factory=Witness)
    """Told of the requests under way."""
    is_local: bool = False
    """Whether it listens to its own machine alone."""
    restarts: int = 0
    """Times that the process before this one crashed."""
    on_exchange: OnExchange = ignore_exchange
    """For data capture."""
    on_start: Callable[[], None] = lambda: None
    """Called once the server handles signals, before its first request."""

    @property
    def workers(self) -> int:
        """Images decoded, and networks run, at once."""
        return self.settings.workers or available_cores()


def create_app(predictor: Predictor, *, surroundings: ServerContext | None = None) -> Starlette:
    """The application for one loaded model, which has to prove itself first.

    Raises:
        DarkroomError: the network computes something else than when it was packed.
    """
    predictor.self_test()
    frame = _Frame(surroundings or ServerContext())
    model = frame.host(predictor, name="model")
    version = predictor.metadata.version

    async def invoke(request: Request) -> Response:
        if name := request.headers.get(TARGET_MODEL):
            raise refused(
                f"no model {name!r:.200}: this server has one model alone, without a name; leave "
                f"out {TARGET_MODEL} (run.py predict: --target-model)",
                status=404,
            )
        return await frame.invocations.answer(request, nullcontext(model))

    async def ping(request: Request) -> Response:
        status = {"status": "healthy", "model_version": version, "engine": predictor.engine.name}
        return JSONResponse({**status, "restarts": frame.around.restarts})

    routes = [
        Route("/ping", ping, methods=["GET"]),
        Route("/invocations", invoke, methods=["POST"]),
    ]
    return frame.application(routes, known=_SINGLE)


def create_multi_model_app(
    folder: Path,
    *,
    surroundings: ServerContext | None = None,
    announced: Mapping[str, str] | None = None,
    left_out: Mapping[str, str] | None = None,
    on_change: Callable[[Mapping[str, str]], None] = lambda models: None,
) -> Starlette:
    """The application for the models below a folder, each loaded when it is first asked.

    Args:
        announced: models to know from the start, by name, and where they lie.
        left_out: what is no model by name, and the reason, for the log.
        on_change: told of the models that are registered, so that a restart knows them.
    """
    frame = _Frame(surroundings or ServerContext())
    frame.left_out |= left_out or {}
    models = frame.models(folder, on_change=on_change)
    for name, url in (announced or {}).items():
        try:
            models.announce(name, url=url)
        except UserError as error:  # it was moved meanwhile; the others are served
            frame.left_out[name] = str(error)

    async def ping(request: Request) -> Response:
        return JSONResponse({"status": "healthy", "restarts": frame.around.restarts})

    api = ModelsApi(models, invocations=frame.invocations)
    routes = [Route("/ping", ping, methods=["GET"]), *api.routes()]
    return frame.application(routes, known=_SEVERAL, has_models=True)


class _Frame:
    """What both applications have: threads, admission, invocations, metrics, errors."""

    def __init__(self, around: ServerContext) -> None:
        self.around = around
        self.left_out = dict[str, str]()
        settings = around.settings
        waiting = settings.maximum_waiting or WAITING_PER_WORKER * around.workers
        self._pools = Pools(around.workers, waiting=waiting, decoders=around.decoders)
        self.invocations = Invocations(
            admission=Admission(
                requests=waiting,
                body_bytes=settings.maximum_body_bytes,
                metrics=around.metrics,
            ),
            fetch=self._fetching(),
            read_large_json=self._pools.read_json,
            witness=around.witness,
            on_exchange=around.on_exchange,
        )
        around.metrics.restarts.set(around.restarts)

    def host(self, predictor: Predictor, *, name: str) -> HostedModel:
        """A loaded model, answering with this server's threads."""
        return HostedModel(
            predictor,
            name=name,
            pools=self._pools,
            maximum_batch=self.around.settings.maximum_batch,
            metrics=self.around.metrics,
        )

    def models(self, folder: Path, *, on_change: Callable[[Mapping[str, str]], None]) -> Models:
        """Those below a folder."""
        limit = self.around.settings.memory_limit_mb * _MEGABYTE or default_limit()
        models = Models(
            names=ModelNames(folder),
            open_model=self._open,
            load=self._pools.load,
            memory_limit=limit,
            on_change=on_change,
            on_eviction=self._note_eviction,
        )
        self.around.metrics.models_loaded.set_function(lambda: models.loaded)
        self.around.metrics.models_bytes.set_function(lambda: models.memory)
        return models

    def application(
        self, routes: Sequence[BaseRoute], *, known: str, has_models: bool = False
    ) -> Starlette:
        """With the routes that both have, and errors as JSON."""
        usual: list[BaseRoute] = [
            Route("/metrics", self._metrics, methods=["GET"]),
            Route("/execution-parameters", self._parameters, methods=["GET"]),
        ]
        if self.around.settings.page:
            settings = self.around.settings

            async def page(request: Request) -> Response:
                return page_response(
                    urls_allowed=settings.allow_urls,
                    models=has_models,
                    maximum_bytes=settings.maximum_body_bytes,
                )

            usual.append(Route("/", page, methods=["GET"]))
        app = Starlette(
            routes=[*routes, *usual],
            middleware=[
                Middleware(RequestLogMiddleware, log=self.around.log, metrics=self.around.metrics),
                Middleware(OriginCheck, policy=self._origin_policy()),
            ],
            exception_handlers={
                HTTPException: partial(_http_error, known),
                ClientDisconnect: _client_gone,
                DarkroomError: _model_failed,
                Exception: _internal_error,
            },
            lifespan=self._lifespan,
        )
        # Else "/models/" is answered with a redirect to wherever the Host header says.
        app.router.redirect_slashes = False
        for route in app.router.routes:
            if isinstance(route, Route):  # Starlette's "$" lets "/models/first%0a" be "first"
                pattern = route.path_regex.pattern.removesuffix("$")
                route.path_regex = re.compile(rf"{pattern}\Z")
        return app

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self.around.on_start()
        for name, reason in self.left_out.items():
            self.around.log.write("left_out", model=name, reason=reason)
        beside = [
            asyncio.create_task(self._tidy()),
            asyncio.create_task(self.around.witness.beat()),
        ]
        yield
        for task in beside:
            task.cancel()
        self._pools.close()

    async def _tidy(self) -> None:
        """Give freed memory back now and then: a single large picture may have taken much."""
        while True:
            await asyncio.sleep(_SECONDS_BETWEEN_TIDYING)
            await self._pools.run_aside(give_back_freed)

    def _origin_policy(self) -> OriginPolicy:
        return OriginPolicy(self.around.settings.allowed_hosts, is_local=self.around.is_local)

    def _fetching(self) -> FetchUrls:
        settings = self.around.settings
        if not settings.allow_urls:
            return refuse_urls
        from darkroom.serving.url_images import UrlFetcher, UrlPolicy

        policy = UrlPolicy(
            allowed_hosts=settings.url_hosts,
            https_only=settings.url_https_only,
            maximum_bytes=settings.maximum_body_bytes,
        )
        return partial(fetch_images, fetch=UrlFetcher(policy).fetch)

    def _open(self, path: Path, name: str) -> HostedModel:
        """In a thread: load a bundle and let it prove itself."""
        predictor = Predictor.load(
            path, threads=1, engine=self.around.settings.engine, seconds=RUN_SECONDS
        )
        predictor.self_test()
        give_back_freed()
        version, engine = predictor.metadata.version, predictor.engine.name
        fallback = {"fallback": predictor.fallback} if predictor.fallback else {}
        self.around.log.write("loaded", model=name, version=version, engine=engine, **fallback)
        return self.host(predictor, name=name)

    def _note_eviction(self, name: str) -> None:
        self.around.metrics.evictions.inc()
        self.around.log.write("evicted", model=name)

    async def _metrics(self, request: Request) -> Response:
        content = self.around.metrics.text()
        return Response(content, headers={"Content-Type": CONTENT_TYPE})

    async def _parameters(self, request: Request) -> Response:
        megabytes = self.around.settings.maximum_body_bytes // _MEGABYTE
        return JSONResponse(
            {
                "MaxConcurrentTransforms": max(2, 2 * self.around.workers),
                "BatchStrategy": "SINGLE_RECORD",
                "MaxPayloadInMB": max(1, megabytes),
            }
        )


async def _http_error(known: str, request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 — as registered
    message = error.detail
    is_ours = error.headers is None and error.detail in ("Not Found", "Method Not Allowed")
    if error.status_code == 405 or (error.status_code == 404 and is_ours):
        message = f"no {request.method} {request.url.path!r:.200} here; there are {known}"
    return JSONResponse({"error": message}, status_code=error.status_code, headers=error.headers)


async def _client_gone(request: Request, error: Exception) -> Response:
    return Response(status_code=LEFT)  # nobody reads it but the log


async def _model_failed(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, status_code=500)


async def _internal_error(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "internal error; see the server's log"}, status_code=500)
