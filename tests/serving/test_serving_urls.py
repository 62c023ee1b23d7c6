"""Requests that name images by URL: answered in order, bounded, refused with the reason."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.exceptions import HTTPException

from answering_server import answer, answering
from darkroom.images import ImageError
from darkroom.models.prediction import Predictor
from darkroom.serving.app import MAX_URLS, ServerContext, create_app, fetch_images
from darkroom.serving.settings import ServingSettings
from darkroom.serving.url_images import UrlFetcher, UrlPolicy
from served import Client, served
from small_bundles import write_small_bundle


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = write_small_bundle(tmp_path_factory.mktemp("model") / "bundle")
    settings = ServingSettings(allow_urls=True, url_hosts=("127.0.0.1", "*.example.com"))
    app = create_app(Predictor.load(folder), surroundings=ServerContext(settings=settings))
    with served(app) as client:
        yield client


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        ({"url": "http://127.0.0.1/"}, 400, "not public"),
        ({"url": "http://2130706433/"}, 400, "not among"),
        ({"url": "http://169.254.169.254/latest/meta-data/"}, 400, "not among"),
        ({"urls": ["file:///etc/passwd"]}, 400, "scheme 'file'"),
        ({"urls": ["http://127.0.0.1/", "ftp://127.0.0.1/"]}, 400, "image "),
        ({"url": "\ud800"}, 400, "characters that no URL has"),
        ({"urls": ["http://127.0.0.1/"] * (MAX_URLS + 1)}, 413, "at most 16"),
    ],
)
def test_a_server_says_why_it_fetches_nothing(
    client: Client, content: Any, status: int, words: str
) -> None:
    body = json.dumps(content).encode()
    refusal = client.send(body=body, content_type="application/json")
    assert refusal.status == status
    assert words in refusal.content["error"]


def test_images_come_in_the_order_of_their_urls() -> None:
    async def scenario() -> None:
        pages = {f"/{number}": [answer(bytes([number]))] for number in range(9)}
        async with answering(pages) as server:
            policy = UrlPolicy(ports=(server.port,))
            fetcher = UrlFetcher(policy, is_allowed=lambda address: address == "127.0.0.1")
            urls = tuple(server.url(path, host="localhost") for path in pages)
            assert await fetch_images(urls, fetch=fetcher.fetch) == [bytes([n]) for n in range(9)]

    asyncio.run(scenario())


def test_what_several_images_may_weigh_together_is_limited() -> None:
    async def fetch(url: str) -> bytes:
        return bytes(6 * 2**20)

    with pytest.raises(HTTPException, match="together"):
        asyncio.run(fetch_images(("u",) * MAX_URLS, fetch=fetch))


def test_one_bad_url_ends_the_fetching_of_the_others() -> None:
    async def scenario() -> None:
        begun, ended = asyncio.Event(), asyncio.Event()

        async def fetch(url: str) -> bytes:
            if url == "bad":
                await begun.wait()
                raise ImageError("no such image")
            begun.set()
            try:
                await asyncio.sleep(30)
            finally:
                ended.set()
            return b""

        with pytest.raises(ImageError, match="image 2: no such image"):
            await fetch_images(("slow", "bad"), fetch=fetch)
        await asyncio.wait_for(ended.wait(), 5)

    asyncio.run(scenario())
