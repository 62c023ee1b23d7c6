"""POST /invocations, and /models/<name>/invoke alike: from a request to its answer."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from darkroom.base.errors import UserError
from darkroom.images import MemoryShortageError
from darkroom.serving.admission import Admission
from darkroom.serving.answers import (
    Classified,
    Options,
    choose_type,
    read_options,
    render,
    single_header,
)
from darkroom.serving.content import FetchUrls, ReadJson, media_type, read_content
from darkroom.serving.decoders import BusyError, NeverFitsError
from darkroom.serving.hosted_model import HostedModel, Timing
from darkroom.serving.limits import not_now, refused
from darkroom.serving.supervisor import Witness, digest_of

UNDER_WAY = "darkroom.under_way"
"""In the scope of a request: the tasks of its connection that end when the client leaves."""

OnExchange = Callable[[Request, bytes, Response], None]
"""Told of every answer: the request, its body, and what was answered."""


def ignore_exchange(request: Request, body: bytes, response: Response) -> None:
    """Nothing is captured."""


class Invocations:
    """Answers requests with a model.

    Args:
        witness: told of the requests under way.
        fetch: brings the images behind URLs, or refuses to.
        read_large_json: parses what would hold up the event loop.
        on_exchange: for data capture.
    """

    def __init__(
        self,
        *,
        admission: Admission,
        fetch: FetchUrls,
        read_large_json: ReadJson,
        witness: Witness,
        on_exchange: OnExchange = ignore_exchange,
    ) -> None:
        self.admission = admission
        self._fetch = fetch
        self._read_large_json = read_large_json
        self._witness = witness
        self._on_exchange = on_exchange

    async def answer(
        self, request: Request, model: AbstractAsyncContextManager[HostedModel]
    ) -> Response:
        """Classify what the request holds.

        Args:
            model: entered once the body is there, for as long as it is asked.

        Raises:
            HTTPException: 4xx says what is wrong with the request.
            DarkroomError: the model fails.
            ClientDisconnect: the client is gone; what had not begun is not done any more.
        """
        header = single_header(request, "Content-Type")
        kind = choose_type(", ".join(request.headers.getlist("accept")))
        media_type(header)
        options = read_options(request)
        with _until_its_client_leaves(request):
            async with self.admission.admit(request) as body, model as hosted:
                classified, timing = await self._classify(
                    body, header=header, options=options, model=hosted
                )
        response = render(classified, kind=kind)
        response.headers["Server-Timing"] = timing.header
        self._on_exchange(request, body, response)
        return response

    async def _classify(
        self, body: bytes, *, header: str | None, options: Options, model: HostedModel
    ) -> tuple[Classified, Timing]:
        digest = await digest_of(body)
        if self._witness.is_refused(digest):
            raise refused("this server has crashed over such a request before, and refuses it")
        try:
            with self._witness.watch(digest):
                content = await read_content(
                    body,
                    header=header,
                    image_size=model.image_size,
                    fetch=self._fetch,
                    read_large_json=self._read_large_json,
                )
                return await model.classify(content, options=options)
        except (BusyError, MemoryShortageError) as error:
            raise not_now(str(error)) from error
        except NeverFitsError as error:
            raise refused(str(error), status=413) from error
        except UserError as error:
            raise refused(str(error)) from error


@contextmanager
def _until_its_client_leaves(request: Request) -> Iterator[None]:
    """Cancel the block when the connection is lost.

    Raises:
        ClientDisconnect: it was.
    """
    under_way: set[asyncio.Task[Any]] = request.scope.get(UNDER_WAY, set())
    task = asyncio.current_task()
    assert task  # noqa: S101 - this is a coroutine
    under_way.add(task)
    try:
        yield
    except asyncio.CancelledError as error:
        if task in under_way:  # somebody else's wish: the server ends
            raise
        task.uncancel()
        raise ClientDisconnect from error
    finally:
        under_way.discard(task)


async def refuse_urls(urls: tuple[str, ...]) -> list[bytes]:
    """Where fetching is not switched on.

    Raises:
        HTTPException: 400.
    """
    raise refused(
        f"{len(urls)} URLs, but this server fetches none: send the image itself, or start it "
        "with --allow-urls (DARKROOM_SERVE_ALLOW_URLS=on)"
    )
