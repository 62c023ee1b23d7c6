"""The body of a request, read no further than the limit and no longer than it may take."""

import asyncio

from starlette.requests import Request

from darkroom.serving.limits import BODY_SECONDS, refused


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
