"""Limits of a request, and the answers of a server that refuses."""

import asyncio
from collections.abc import Sequence

from starlette.exceptions import HTTPException
from starlette.requests import Request

# --- limits ---

MAX_BODY_BYTES = 6 * 2**20
"""Of SageMaker's real-time endpoints (InvokeEndpoint's Body)."""

MAX_IMAGES = 64
"""In one request."""

MAX_URL = 2048
"""Characters of a URL that an image is fetched from."""

DECODING_SECONDS = 10
"""Of processor time for one image. The slowest that was found within all other limits takes
a third of it (benchmarks/decoding_cost.py)."""

BODY_SILENCE_SECONDS = 10
"""After which a body that does not go on is not waited for."""

BODY_BYTES_PER_SECOND = 16 * 2**10
"""At which a body has to arrive, in the mean: a slow telephone's rate."""

BODY_SECONDS = 10
"""In which an order to load a model has to arrive."""

RUN_SECONDS = 30
"""That a network may take for a batch, its self-test at loading among them: a model of the
catalogue takes some hundredths of it. SageMaker waits 60 s for an answer."""

LOADING_SECONDS = 120
"""That a model may take to be loaded, when it is one of several."""

MAX_CONNECTIONS = 2048
MAX_CONNECTIONS_OF_ONE_ADDRESS = 512
"""A proxy is one address, too; SageMaker's has a few dozen open."""

HEADER_SECONDS = 10
"""In which a request's head has to arrive, from the connection or the answer before it."""

MAX_HEADER_BYTES = 64 * 2**10
"""Of the request line and all headers together."""


def refused(message: str, *, status: int = 400) -> HTTPException:
    """The client's mistake: the message says what is wrong and what is accepted."""
    return HTTPException(status, message)


def unsupported(message: str, *, header: str, accepted: Sequence[str]) -> HTTPException:
    """415, with the header that says what is accepted (RFC 9110, 15.5.16)."""
    return HTTPException(415, message, {header: ", ".join(accepted)})


def too_many_images(count: int) -> HTTPException:
    """413."""
    return refused(f"{count} images in one request; at most {MAX_IMAGES} are accepted", status=413)


def not_now(message: str, *, seconds: int = 1, status: int = 503) -> HTTPException:
    """The server cannot do it at present; the client may come again."""
    return HTTPException(status, message, {"Retry-After": str(seconds)})


# --- bodies ---
# The body of a request, read no further than the limit and no longer than it may take.


async def read_body(request: Request, *, maximum_bytes: int) -> bytes:
    """All of the body.

    Raises:
        HTTPException: 413 too large, 408 too slow, 400 empty.
        ClientDisconnect: the client is gone.
    """
    too_large = refused(f"the body is larger than {maximum_bytes:,} bytes", status=413)
    if int(request.headers.get("content-length", "0")) > maximum_bytes:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > maximum_bytes:
                    raise too_large
    except TimeoutError as error:
        message = f"the body did not arrive within {BODY_SECONDS} s"
        raise refused(message, status=408) from error
    if not body:
        raise refused("the body is empty; send the bytes of an image")
    return bytes(body)
