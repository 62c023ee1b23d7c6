"""SageMaker's API for several models in one container, and TargetModel on this machine.

    POST   /models                    {"model_name": …, "url": folder}   load
    GET    /models                    what is loaded, by pages
    GET    /models/<name>             one of them
    DELETE /models/<name>             unload
    POST   /models/<name>/invoke      as /invocations
    POST   /invocations               the model that X-Amzn-SageMaker-Target-Model names

https://docs.aws.amazon.com/sagemaker/latest/dg/mms-container-apis.html; statuses as AWS's
multi-model-server answers: 404 unknown, 409 loaded already, 507 no memory.
"""

import json
from collections.abc import Awaitable, Callable

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from darkroom.errors import DarkroomError, UserError
from darkroom.serving.bodies import read_body
from darkroom.serving.invocations import Invocations
from darkroom.serving.limits import not_now, refused, unsupported
from darkroom.serving.models import (
    Entry,
    KnownModelError,
    Models,
    NoRoomError,
    UnknownModelError,
)
from darkroom.serving.options import single_header

TARGET_MODEL = "X-Amzn-SageMaker-Target-Model"

_ORDER_BYTES = 64 * 2**10
_PAGE = 100
_JSON = "application/json"
_ORDER = '{"model_name": "…", "url": "folder of a bundle"}'
_STATUSES = {UnknownModelError: 404, KnownModelError: 409}

Handler = Callable[[Request], Awaitable[Response]]


class ModelsApi:
    """The routes of a server with several models."""

    def __init__(self, models: Models, *, invocations: Invocations) -> None:
        self._models = models
        self._invocations = invocations

    def routes(self) -> list[Route]:
        """All of them."""
        return [
            Route("/models", _told(self.load), methods=["POST"]),
            Route("/models", _told(self.list), methods=["GET"]),
            Route("/models/{name:path}", _told(self.describe), methods=["GET"]),
            Route("/models/{name:path}", _told(self.unload), methods=["DELETE"]),
            Route("/models/{name:path}/invoke", _told(self.invoke_named), methods=["POST"]),
            Route("/invocations", _told(self.invoke_target), methods=["POST"]),
        ]

    async def load(self, request: Request) -> Response:
        """Register a model and load it."""
        _check_type(request)
        name, url = _order(await read_body(request, maximum_bytes=_ORDER_BYTES))
        entry = await self._models.register(name, url=url)
        return JSONResponse({"status": f"model {name!r} is loaded", **_described(entry)})

    async def list(self, request: Request) -> Response:
        """The registered models, `limit` to a page."""
        entries = self._models.entries()
        start = _number(request, "next_page_token", default=0)
        end = start + max(1, _number(request, "limit", default=_PAGE))
        shown = [{"modelName": e.name, "modelUrl": e.url} for e in entries[start:end]]
        page = {"models": shown}
        return JSONResponse(page if end >= len(entries) else {**page, "nextPageToken": str(end)})

    async def describe(self, request: Request) -> Response:
        """One registered model."""
        return JSONResponse(_described(self._models.find(request.path_params["name"])))

    async def unload(self, request: Request) -> Response:
        """Forget a model."""
        name = request.path_params["name"]
        await self._models.remove(name)
        return JSONResponse({"status": f"model {name!r} is unloaded"})

    async def invoke_named(self, request: Request) -> Response:
        """Classify with the model that the path names."""
        return await self._invoke(request, name=request.path_params["name"])

    async def invoke_target(self, request: Request) -> Response:
        """Classify with the model that the header names."""
        name = single_header(request, TARGET_MODEL)
        if not name:
            raise refused(
                f"no model is named: give the header {TARGET_MODEL} (run.py predict: "
                f"--target-model NAME); {self._models.known()}",
                status=404,
            )
        self._models.discover(name)
        return await self._invoke(request, name=name)

    async def _invoke(self, request: Request, *, name: str) -> Response:
        self._models.find(name)
        return await self._invocations.answer(request, self._models.use(name))


def _told(handler: Handler) -> Handler:
    """What a model's absence or refusal means in HTTP."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except NoRoomError as error:
            raise not_now(str(error), status=507) from error
        except UserError as error:
            raise refused(str(error), status=_STATUSES.get(type(error), 400)) from error
        except DarkroomError as error:
            raise HTTPException(500, str(error)) from error

    return answer


def _check_type(request: Request) -> None:
    """JSON alone: web pages may send forms and plain text anywhere, unasked."""
    kind = (single_header(request, "Content-Type") or _JSON).partition(";")[0].strip().lower()
    if kind != _JSON:
        message = f"content type {kind!r:.100}; accepted is {_JSON}: {_ORDER}"
        raise unsupported(message, header="Accept", accepted=(_JSON,))


def _order(body: bytes) -> tuple[str, str]:
    try:
        content = json.loads(body)
        name, url = content["model_name"], content["url"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise refused(f"the body has to be {_ORDER}") from error
    if not (isinstance(name, str) and isinstance(url, str)):
        raise refused(f"the body has to be {_ORDER}, both of them texts")
    return name, url


def _number(request: Request, name: str, *, default: int) -> int:
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise refused(f"{name} is {text!r:.100}; it must be a whole number")
    return int(text)


def _described(entry: Entry) -> dict[str, object]:
    named: dict[str, object] = {"modelName": entry.name, "modelUrl": entry.url}
    named["loaded"] = entry.hosted is not None
    named["memoryBytes"] = entry.memory
    if entry.hosted is not None:
        metadata = entry.hosted.predictor.metadata
        named["modelVersion"] = metadata.version
        named["engine"] = entry.hosted.predictor.engine.name
        if entry.hosted.predictor.fallback:
            named["engineFallback"] = entry.hosted.predictor.fallback
        named["architecture"] = metadata.architecture
        named["classes"] = list(metadata.classes)
    return named
