"""The images behind the URLs of one request."""

import asyncio
from collections.abc import Awaitable, Callable

from darkroom.images import ImageError
from darkroom.serving.limits import refused

MAXIMUM_URLS = 16
"""In one request: each may be as large as a whole body."""

_AT_ONCE = 4
_BYTES = 32 * 2**20
"""Of all of them together."""

Fetch = Callable[[str], Awaitable[bytes]]


async def fetch_images(urls: tuple[str, ...], *, fetch: Fetch) -> list[bytes]:
    """The bodies, in order.

    Raises:
        HTTPException: 413 for too many, or too much.
        ImageError: one is refused or cannot be fetched; of several, the message says which.
    """
    if len(urls) > MAXIMUM_URLS:
        message = f"{len(urls)} URLs in one request; at most {MAXIMUM_URLS} are fetched"
        raise refused(message, status=413)
    turn, fetched = asyncio.Semaphore(_AT_ONCE), 0

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
