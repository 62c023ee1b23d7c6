"""Several models behind one server, loaded on first use; SageMaker's API for them."""

import asyncio
import json
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from darkroom.base.errors import DarkroomError, UserError
from darkroom.serving.answers import single_header
from darkroom.serving.hosted_model import HostedModel
from darkroom.serving.invocations import Invocations
from darkroom.serving.limits import not_now, read_body, refused, unsupported
from darkroom.serving.memory import memory_of
from darkroom.serving.model_names import ModelNames

# --- models ---

_NAMES_SHOWN = 20
_SECONDS_FOR_ROOM = 10
"""How long a model waits until others have answered and can be evicted."""


class UnknownModelError(UserError):
    """No model of this name, or nothing where it should be: 404."""


class KnownModelError(UserError):
    """The name is taken: 409."""


class NoRoomError(DarkroomError):
    """It does not fit into the memory: 507."""


@dataclass
class Entry:
    """A registered model."""

    name: str
    url: str
    path: Path
    hosted: HostedModel | None = None
    loading: "asyncio.Task[HostedModel] | None" = None
    memory: int = 0
    """Bytes that it is counted with while it is in memory, or on its way there."""
    users: int = 0
    """Requests that it answers at the moment."""


class Models:
    """The registered models of a server. Belongs to one event loop.

    Args:
        names: says which names and places are allowed.
        open_model: loads a bundle under a name, in a thread; raises UserError.
        load: runs a function in that thread; raises TimeoutError where it takes too long.
        memory_limit: bytes that all models in memory are counted with at most.
        on_change: told of what is registered (name to url), and of each eviction.
    """

    def __init__(
        self,
        *,
        names: ModelNames,
        open_model: Callable[[Path, str], HostedModel],
        load: Callable[[Callable[[], HostedModel]], Awaitable[HostedModel]],
        memory_limit: int,
        on_change: Callable[[Mapping[str, str]], None],
        on_eviction: Callable[[str], None],
    ) -> None:
        self._names = names
        self._open_model = open_model
        self._load = load
        self._limit = memory_limit
        self._on_change = on_change
        self._on_eviction = on_eviction
        self._entries: OrderedDict[str, Entry] = OrderedDict()  # least recently used first
        self._leaving: list[Entry] = []
        self._released = asyncio.Condition()

    def entries(self) -> list[Entry]:
        """All registered models, by name."""
        return sorted(self._entries.values(), key=lambda entry: entry.name)

    def find(self, name: str) -> Entry:
        """A registered model.

        Raises:
            UnknownModelError: there is none of this name.
        """
        if name not in self._entries:
            raise UnknownModelError(f"no model {name!r:.200}; {self.known()}")
        return self._entries[name]

    def known(self) -> str:
        """What models there are, in words."""
        names = sorted(self._entries)
        shown = ", ".join(repr(name) for name in names[:_NAMES_SHOWN])
        more = f" and {len(names) - _NAMES_SHOWN} more (GET /models)" * (len(names) > _NAMES_SHOWN)
        return f"there are {shown}{more}" if names else "there is none yet"

    def announce(self, name: str, *, url: str) -> None:
        """Register a model that is loaded when it is first asked."""
        self._entries[name] = Entry(name, url, self._names.place(url))

    def discover(self, name: str) -> None:
        """Announce a model that lies in the folder under its name, if it is not registered.

        Raises:
            UnknownModelError: there is none.
        """
        if name in self._entries:
            return
        try:
            self._names.check(name)
        except UserError as error:
            raise UnknownModelError(f"no model {name!r:.200}; {self.known()}. {error}") from error
        if not self._names.is_bundle(self._names.place(name)):
            raise UnknownModelError(f"no model {name!r:.200}; {self.known()}")
        self.announce(name, url=name)

    async def register(self, name: str, *, url: str) -> Entry:
        """Register a model, and load it.

        Raises:
            KnownModelError: the name is taken.
            UnknownModelError: there is nothing at `url`.
            NoRoomError: it does not fit.
            UserError: the name is none, or the bundle is unusable.
        """
        self._names.check(name)
        if name in self._entries:
            raise KnownModelError(f"a model {name!r} is loaded already")
        entry = Entry(name, url, self._names.place(url))
        if not entry.path.exists():
            raise UnknownModelError(f"no model at {url!r:.300}")
        self._entries[name] = entry
        try:
            await self._bring(entry)
        except BaseException:
            if self._entries.get(name) is entry:
                del self._entries[name]
            raise
        self._changed()
        return entry

    async def remove(self, name: str) -> None:
        """Forget a model; requests that it is answering are answered.

        Raises:
            UnknownModelError: there is none of this name.
        """
        entry = self.find(name)
        del self._entries[name]
        if entry.users or entry.loading:
            self._leaving.append(entry)
        self._changed()
        await self._announce_room()

    @asynccontextmanager
    async def use(self, name: str) -> AsyncIterator[HostedModel]:
        """The model, in memory while the block runs.

        Raises:
            UnknownModelError, NoRoomError, UserError: as `register`.
        """
        entry = self.find(name)
        entry.users += 1
        try:
            yield await self._bring(entry)
        finally:
            entry.users -= 1
            self._let_go(entry)
            await self._announce_room()

    @property
    def memory(self) -> int:
        """Bytes that the models in memory, or on their way there, are counted with."""
        return sum(entry.memory for entry in (*self._entries.values(), *self._leaving))

    @property
    def loaded(self) -> int:
        """Models in memory."""
        return sum(e.hosted is not None for e in (*self._entries.values(), *self._leaving))

    async def _bring(self, entry: Entry) -> HostedModel:
        if entry.name in self._entries:
            self._entries.move_to_end(entry.name)
        if entry.hosted is not None:
            return entry.hosted
        if entry.loading is None:
            entry.loading = asyncio.create_task(self._load_into(entry))
            entry.loading.add_done_callback(_note_exception)
        return await asyncio.shield(entry.loading)

    async def _load_into(self, entry: Entry) -> HostedModel:
        try:
            await self._make_room(entry)
            entry.hosted = await self._load(lambda: self._open_model(entry.path, entry.name))
        except TimeoutError as error:
            entry.memory = 0
            raise DarkroomError(f"loading the model {entry.name!r} does not end") from error
        except BaseException:
            entry.memory = 0
            raise
        finally:
            entry.loading = None
            self._let_go(entry)
            await self._announce_room()
        return entry.hosted

    async def _make_room(self, entry: Entry) -> None:
        """Evict until the model fits, and count it.

        Raises:
            NoRoomError: it never will, or others are busy for too long.
        """
        needed = await asyncio.to_thread(memory_of, entry.path)
        if needed > self._limit:
            raise NoRoomError(_too_large(entry, needed=needed, limit=self._limit))
        try:
            async with asyncio.timeout(_SECONDS_FOR_ROOM), self._released:
                await self._released.wait_for(lambda: self._evict_for(needed))
                entry.memory = needed
        except TimeoutError as error:
            raise NoRoomError(
                f"no memory for the model {entry.name!r}: all others are answering requests"
            ) from error

    def _evict_for(self, needed: int) -> bool:
        """Whether `needed` bytes are free now, after evicting what is idle."""
        for entry in list(self._entries.values()):
            if self.memory + needed <= self._limit:
                return True
            if entry.hosted is not None and not entry.users:
                entry.hosted, entry.memory = None, 0
                self._on_eviction(entry.name)
        return self.memory + needed <= self._limit

    def _let_go(self, entry: Entry) -> None:
        """Drop a removed model once nobody uses it."""
        if entry in self._leaving and not entry.users and not entry.loading:
            self._leaving.remove(entry)
            entry.hosted, entry.memory = None, 0

    async def _announce_room(self) -> None:
        async with self._released:
            self._released.notify_all()

    def _changed(self) -> None:
        self._on_change({entry.name: entry.url for entry in self._entries.values()})


def _note_exception(task: "asyncio.Task[HostedModel]") -> None:
    """Whoever waits for it gets the exception too; they may all have gone."""
    if not task.cancelled():
        task.exception()


def _too_large(entry: Entry, *, needed: int, limit: int) -> str:
    mb = 10**6
    return (
        f"the model {entry.name!r} needs about {needed // mb} MB, more than the "
        f"{limit // mb} MB that all models may take (--memory-limit-mb)"
    )


# --- models api ---
# SageMaker's API for several models in one container, and TargetModel on this machine.
#
# POST   /models                    {"model_name": …, "url": folder}   load
# GET    /models                    what is loaded, by pages
# GET    /models/<name>             one of them
# DELETE /models/<name>             unload
# POST   /models/<name>/invoke      as /invocations
# POST   /invocations               the model that X-Amzn-SageMaker-Target-Model names
#
# https://docs.aws.amazon.com/sagemaker/latest/dg/mms-container-apis.html; statuses as AWS's
# multi-model-server answers: 404 unknown, 409 loaded already, 507 no memory.

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
