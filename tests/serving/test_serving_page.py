"""The page at / of a local server, and what a browser makes of it."""

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from darkroom.models.prediction import Predictor
from darkroom.serving.app import ServerContext, create_app, create_multi_model_app, page_response
from darkroom.serving.settings import ServingSettings
from headless_browser import BROWSER, Tab, browsing
from served import Client, encoded, served
from small_bundles import write_small_bundle

POLICY = "content-security-policy"
EVIL = "<img src=x onerror=document.title='run'>"

needs_a_browser = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium: `apt-get install chromium`"),
]


def around(**settings: Any) -> ServerContext:
    return ServerContext(ServingSettings(page=True, workers=1, **settings))


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    classes = (f"{EVIL}blue", "green", "red")
    bundle = write_small_bundle(tmp_path / "bundle", classes=classes)
    with served(create_app(Predictor.load(bundle), surroundings=around())) as client:
        yield client


@pytest.fixture
def pictures(tmp_path: Path) -> dict[str, Path]:
    """Files of some colours, and one that is no image, with names that are markup."""
    files = {name: tmp_path / f"{name}.png" for name in ("red", "green", "blue")}
    for name, file in files.items():
        file.write_bytes(encoded(name, size=(320, 240)))
    files["evil"] = tmp_path / f"{EVIL.replace('/', '')}.png"
    files["evil"].write_bytes(b"no image")
    return files


def test_the_page_loads_nothing_from_elsewhere() -> None:
    page = page_response(urls_allowed=True, models=True, maximum_bytes=2**20)
    text = bytes(page.body).decode()
    assert not re.search(r"(src|href)=[\"']?(https?:)?//|@import|url\(", text)
    assert len(text) < 30_000
    assert "innerHTML" not in text
    assert page.headers["x-content-type-options"] == "nosniff"


def test_it_names_what_a_request_may_hold() -> None:
    page = page_response(urls_allowed=False, models=False, maximum_bytes=2**20)
    assert b'"bytes": 1048576, "formats": "JPEG, PNG, WEBP, BMP"' in bytes(page.body)


def test_its_policy_lets_its_own_script_and_style_run_and_no_other() -> None:
    policy = page_response(urls_allowed=False, models=False, maximum_bytes=2**20).headers[
        "content-security-policy"
    ]
    assert "default-src 'none'" in policy
    assert policy.count("'sha256-") == 2
    assert "unsafe" not in policy


def test_pages_with_other_settings_have_other_hashes() -> None:
    policies = {
        page_response(urls_allowed=urls, models=models, maximum_bytes=2**20).headers[
            "content-security-policy"
        ]
        for urls in (True, False)
        for models in (True, False)
    }
    assert len(policies) == 4


def test_the_page_is_there_where_it_is_wanted_alone(client: Client, tmp_path: Path) -> None:
    assert b"<title>Darkroom</title>" in client.send("GET", "/").content
    bundle = write_small_bundle(tmp_path / "other")
    with served(create_app(Predictor.load(bundle))) as without:
        assert without.send("GET", "/").status == 404


def in_a_browser(url: str, scenario: Callable[[Tab], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        async with browsing() as tab:
            await tab.open(url)
            await scenario(tab)
            assert tab.console == []

    asyncio.run(run())


def address(client: Client) -> str:
    return f"http://127.0.0.1:{client.port}/"


class TestInABrowser:
    pytestmark = needs_a_browser

    def test_a_chosen_image_shows_its_class_and_how_long_it_took(
        self, client: Client, pictures: dict[str, Path]
    ) -> None:
        async def scenario(tab: Tab) -> None:
            await tab.choose_files("#file", [pictures["red"]])
            await tab.until("document.querySelectorAll('.time').length === 1")
            assert await tab.evaluate("document.querySelector('h2').textContent") == "red"
            time = await tab.evaluate("document.querySelector('.time').textContent")
            assert re.search(r"\d+ ms there and back \(decode [\d.]+ ms, queue", time)
            assert "Model version" in await tab.evaluate("document.body.innerText")
            await tab.until("document.querySelector('img').naturalWidth === 320")

        in_a_browser(address(client), scenario)

    def test_several_images_are_answered_newest_first(
        self, client: Client, pictures: dict[str, Path]
    ) -> None:
        async def scenario(tab: Tab) -> None:
            await tab.choose_files("#file", [pictures["red"], pictures["green"]])
            await tab.until("document.querySelectorAll('.time').length === 2")
            shown = "[...document.querySelectorAll('h2')].map((h) => h.textContent).join()"
            assert await tab.evaluate(shown) == "green,red"

        in_a_browser(address(client), scenario)

    def test_an_image_can_be_dropped(self, client: Client, pictures: dict[str, Path]) -> None:
        async def scenario(tab: Tab) -> None:
            content = ",".join(map(str, pictures["green"].read_bytes()))
            await tab.evaluate(
                f"""(() => {{
                    const data = new DataTransfer();
                    data.items.add(new File([new Uint8Array([{content}])], "green.png"));
                    const init = {{bubbles: true, cancelable: true, dataTransfer: data}};
                    document.getElementById("drop").dispatchEvent(new DragEvent("drop", init));
                }})()"""
            )
            await tab.until("document.querySelectorAll('.time').length === 1")
            assert await tab.evaluate("document.querySelector('h2').textContent") == "green"

        in_a_browser(address(client), scenario)

    def test_what_is_larger_than_a_request_is_made_smaller_before_it_is_sent(
        self, tmp_path: Path
    ) -> None:
        photograph, body = tmp_path / "large.png", 100_000
        noise = Image.effect_noise((700, 500), 90)
        Image.merge("RGB", [noise, Image.new("L", noise.size), Image.new("L", noise.size)]).save(
            photograph
        )
        assert photograph.stat().st_size > 2 * body
        bundle = write_small_bundle(tmp_path / "bundle")
        settings = ServingSettings(page=True, maximum_body_bytes=body)
        app = create_app(Predictor.load(bundle), surroundings=ServerContext(settings))

        async def scenario(tab: Tab) -> None:
            await tab.choose_files("#file", [photograph])
            await tab.until("document.querySelectorAll('.time').length === 1")
            assert await tab.evaluate("document.querySelector('h2').textContent") == "red"
            name = await tab.evaluate("document.querySelector('.name').textContent")
            assert "sent as 0.1 MiB" in name or "sent as 0.0 MiB" in name

        with served(app) as client:
            in_a_browser(address(client), scenario)

    def test_markup_in_names_and_classes_is_text(
        self, client: Client, pictures: dict[str, Path]
    ) -> None:
        async def scenario(tab: Tab) -> None:
            await tab.choose_files("#file", [pictures["blue"], pictures["evil"]])
            await tab.until("document.querySelectorAll('.error').length === 1")
            assert "not an image" in await tab.evaluate(
                "document.querySelector('.error').textContent"
            )
            names = await tab.evaluate("document.getElementById('results').textContent")
            assert names.count("<img src=x") >= 2
            assert await tab.evaluate("document.querySelectorAll('img[src=x]').length") == 0
            assert await tab.evaluate("document.title") == "Darkroom"

        in_a_browser(address(client), scenario)

    def test_the_model_can_be_chosen_where_there_are_several(
        self, tmp_path: Path, pictures: dict[str, Path]
    ) -> None:
        folder = tmp_path / "models"
        for name, classes in (("one", ("b", "g", "r")), ("two", ("blau", "grün", "rot"))):
            write_small_bundle(folder / name, classes=classes)
        app = create_multi_model_app(
            folder, surroundings=around(), announced={"one": "one", "two": "two"}
        )

        async def scenario(tab: Tab) -> None:
            await tab.until("document.getElementById('models').length === 2")
            await tab.evaluate("document.getElementById('models').value = 'two'")
            await tab.choose_files("#file", [pictures["red"]])
            await tab.until("document.querySelectorAll('.time').length === 1")
            assert await tab.evaluate("document.querySelector('h2').textContent") == "rot"

        with served(app) as client:
            in_a_browser(address(client), scenario)
