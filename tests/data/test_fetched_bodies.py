"""What `predict` makes of web servers that send an image slowly, in pieces, or half."""

import asyncio

import pytest

from answering_server import answer, answering
from darkroom.data import inputs
from darkroom.data.found_image import FoundImage
from darkroom.data.inputs import images_of, look_at

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def found(url: str) -> list[FoundImage]:
    return list(images_of(look_at([url])))


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([answer(b"", length=100), *[b"x"] * 60], "not fetched within"),
        ([answer(b"half", length=100)], "the connection broke off"),
        ([CHUNKED, b"4\r\nhalf\r\n"], "the connection broke off"),
    ],
)
def test_a_body_that_drips_or_breaks_off_is_given_up(
    parts: list[bytes], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "_IMAGE_SECONDS", 0.2)

    async def scenario() -> None:
        async with answering({"/": parts}, pause=0.05) as server:
            (row,) = await asyncio.to_thread(found, server.url())
            assert words in str(row.error)

    asyncio.run(scenario())


def test_a_body_in_pieces_is_put_together() -> None:
    async def scenario() -> None:
        parts = [CHUNKED, b"4\r\nhalf\r\n", b"5\r\n more\r\n", b"0\r\n\r\n"]
        async with answering({"/": parts}) as server:
            (row,) = await asyncio.to_thread(found, server.url())
            assert row.content == b"half more"

    asyncio.run(scenario())
