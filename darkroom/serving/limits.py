"""Limits of a request, and the answers of a server that refuses."""

from starlette.exceptions import HTTPException

MAXIMUM_BODY_BYTES = 6 * 2**20
"""Of SageMaker's real-time endpoints (InvokeEndpoint's Body)."""

MAXIMUM_IMAGES = 64
"""In one request."""

DECODING_SECONDS = 10
"""Of processor time for one image. The slowest that was found within all other limits takes
a third of it (benchmarks/decoding_cost.py)."""

BODY_SECONDS = 30
"""In which a body has to arrive."""

HEADER_SECONDS = 10
"""In which a request's head has to arrive, from the connection or the answer before it."""

MAXIMUM_HEADER_BYTES = 64 * 2**10
"""Of the request line and all headers together."""


def refused(message: str, *, status: int = 400) -> HTTPException:
    """The client's mistake: the message says what is wrong and what is accepted."""
    return HTTPException(status, message)


def too_many_images(count: int) -> HTTPException:
    """413."""
    return refused(
        f"{count} images in one request; at most {MAXIMUM_IMAGES} are accepted", status=413
    )


def not_now(message: str, *, seconds: int = 1, status: int = 503) -> HTTPException:
    """The server cannot do it at present; the client may come again."""
    return HTTPException(status, message, {"Retry-After": str(seconds)})
