"""multipart/form-data: several images in one request, as a browser or `curl -F` sends them."""

import asyncio
from collections.abc import AsyncGenerator, Callable

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from darkroom.serving.limits import MAXIMUM_IMAGES, refused, too_many_images

_PIECE_BYTES = 1 << 16


class _InMemoryParser(MultiPartParser):
    """Spools nothing to a disk that may be read-only; the body is in memory and limited anyway."""

    spool_max_size = 2**30
    is_whole = False

    def on_end(self) -> None:
        """The line that ends a form."""
        self.is_whole = True


async def read_files(body: bytes, *, content_type: str) -> list[bytes]:
    """The files of a form, in its order; other fields are refused.

    Raises:
        HTTPException: 400 for a malformed form or one without files, 413 for too many.
    """
    parser = _InMemoryParser(
        Headers({"content-type": content_type}),
        _in_pieces(body, is_whole=lambda: parser.is_whole),
        max_files=MAXIMUM_IMAGES,
        max_fields=0,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if "Too many files" in error.message:
            raise too_many_images(MAXIMUM_IMAGES + 1) from error
        raise refused(
            f"the form cannot be read ({error.message}); send each image as a file field"
        ) from error
    except (ValueError, KeyError, LookupError) as error:
        raise refused("the form cannot be read; its content type needs a boundary") from error
    files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    contents = [await file.read() for file in files]
    await form.close()
    if not contents:
        raise refused("the form holds no file; send each image as a file field")
    return contents


async def _in_pieces(body: bytes, *, is_whole: Callable[[], bool]) -> AsyncGenerator[bytes, None]:
    """The parser is written in Python: between two pieces it is the turn of other requests.

    Raises:
        MultiPartException: after the last, the form has no end; its last file would be left out.
    """
    for start in range(0, len(body), _PIECE_BYTES):
        yield body[start : start + _PIECE_BYTES]
        await asyncio.sleep(0)
    if not is_whole():
        raise MultiPartException("it is cut off: the line that ends it is missing")
