"""Several models behind one server; the statuses are those of AWS's multi-model-server."""

import asyncio
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from test_serving_supervisor import running

from darkroom.models.prediction import Predictor
from darkroom.serving.app import ServerContext, create_app, create_multi_model_app
from darkroom.serving.memory import memory_of
from darkroom.serving.monitoring import MAX_MODELS
from darkroom.serving.multi_model import TARGET_MODEL
from darkroom.serving.settings import ServingSettings
from served import Answer, Client, encoded, served
from small_bundles import pack_small_bundle, write_small_bundle

COLOURS = ("red", "green", "blue")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two bundles of different classes and sizes, one of them an archive, and a broken one."""
    folder = tmp_path / "models"
    write_small_bundle(folder / "colours")
    pack_small_bundle(folder / "farben.tar.gz", image_size=24, classes=("blau", "grün", "rot"))
    (folder / "broken").mkdir()
    (folder / "broken" / "model.json").write_text("{}")
    return folder


@contextmanager
def serving(folder: Path, **settings: Any) -> Iterator[Client]:
    around = ServerContext(ServingSettings(workers=2, **settings))
    with served(create_multi_model_app(folder, surroundings=around)) as client:
        yield client


@pytest.fixture
def client(folder: Path) -> Iterator[Client]:
    with serving(folder) as client:
        yield client


def load(client: Client, name: Any, url: Any) -> Answer:
    body = json.dumps({"model_name": name, "url": url}).encode()
    return client.send(path="/models", body=body, content_type="application/json")


def ask(client: Client, name: str, colour: str = "red") -> Answer:
    return client.send(body=encoded(colour), headers={TARGET_MODEL: name})


def test_a_server_without_models_is_healthy(client: Client) -> None:
    assert client.send("GET", "/ping").status == 200
    assert client.send("GET", "/models").content == {"models": []}


def test_the_life_of_a_model(client: Client, folder: Path) -> None:
    url = str(folder / "colours")
    assert load(client, "abc123", url).status == 200
    assert load(client, "abc123", url).status == 409
    listed = client.send("GET", "/models").content
    assert listed == {"models": [{"modelName": "abc123", "modelUrl": url}]}
    described = client.send("GET", "/models/abc123").content
    assert (described["modelName"], described["loaded"]) == ("abc123", True)
    assert described["classes"] == ["blue", "green", "red"]
    answer = client.send(path="/models/abc123/invoke", body=encoded("red"))
    assert (answer.status, answer.content["class"]) == (200, "red")
    assert client.send("DELETE", "/models/abc123").status == 200
    assert client.send("DELETE", "/models/abc123").status == 404
    assert client.send("GET", "/models/abc123").status == 404
    assert client.send(path="/models/abc123/invoke", body=encoded()).status == 404


def test_models_of_different_classes_and_sizes_answer_side_by_side(client: Client) -> None:
    assert ask(client, "colours", "red").content["class"] == "red"
    assert ask(client, "farben.tar.gz", "red").content["class"] == "rot"
    assert ask(client, "colours", "blue").content["class"] == "blue"


@pytest.mark.parametrize("ending", ["%0a", "%0A%0A", "%0d%0a", "%00", "%20"])
def test_a_name_with_something_behind_it_is_not_the_name(client: Client, ending: str) -> None:
    assert load(client, "mine", "colours").status == 200
    for method, path in (
        ("DELETE", f"/models/mine{ending}"),
        ("GET", f"/models/mine{ending}"),
        ("POST", f"/models/mine/invoke{ending}"),
        ("POST", f"/models/mine{ending}/invoke"),
        ("GET", f"/ping{ending}"),
    ):
        assert client.send(method, path, body=encoded()).status in (400, 404, 405), (method, path)
    assert client.send("GET", "/models/mine").status == 200


def test_a_request_that_names_no_model_is_told_how(client: Client) -> None:
    assert load(client, "mine", "colours").status == 200
    answer = client.send(body=encoded())
    assert answer.status == 404
    assert TARGET_MODEL in answer.content["error"]
    assert "there are 'mine'" in answer.content["error"]


@pytest.mark.parametrize("name", ["nope", "no pe", "../nope", "nope/", "x" * 5000])
def test_a_name_of_no_model_is_answered_with_those_that_there_are(
    client: Client, name: str
) -> None:
    assert load(client, "mine", "colours").status == 200
    answer = ask(client, name)
    assert answer.status == 404
    assert "there are 'mine'" in answer.content["error"]
    assert len(answer.content["error"]) < 800


def test_a_server_of_one_model_refuses_the_name_of_another(tmp_path: Path) -> None:
    app = create_app(Predictor.load(write_small_bundle(tmp_path / "colours")))
    with served(app) as client:
        answer = ask(client, "dogs.tar.gz")
        assert (answer.status, client.send(body=encoded("red")).status) == (404, 200)
    assert answer.content["error"].startswith("no model 'dogs.tar.gz': this server has one model")


def test_a_broken_model_says_why_and_touches_no_other(client: Client, folder: Path) -> None:
    answer = load(client, "broken", str(folder / "broken"))
    assert answer.status == 400
    assert "not valid bundle metadata" in answer.content["error"]
    assert client.send("GET", "/models/broken").status == 404
    assert ask(client, "colours").status == 200


@pytest.mark.parametrize(
    ("name", "url", "status"),
    [
        ("m", "/etc", 400),
        ("m", "../outside", 400),
        ("m", "colours/../../outside", 400),
        ("m", "https://example.com/model.tar.gz", 404),
        ("m", "colours\0", 400),
        ("m", ".", 400),
        ("m", "x" * 5000, 400),
        ("m", "missing", 404),
        ("../m", "colours", 400),
        ("a//b", "colours", 400),
        ("", "colours", 400),
        (".hidden", "colours", 400),
        ("n" * 300, "colours", 400),
        (7, "colours", 400),
        ("m", None, 400),
    ],
)
def test_names_and_places_that_lead_elsewhere_are_refused(
    client: Client, name: Any, url: Any, status: int
) -> None:
    answer = load(client, name, url)
    assert answer.status == status
    assert answer.content["error"]
    assert client.send("GET", "/models").content["models"] == []


def test_a_link_out_of_the_folder_is_refused(client: Client, folder: Path) -> None:
    outside = write_small_bundle(folder.parent / "outside")
    (folder / "link").symlink_to(outside)
    assert load(client, "m", "link").status == 400


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"url": "colours"}', b"[" * 60_000])
def test_an_order_that_is_none_is_told_its_form(client: Client, body: bytes) -> None:
    answer = client.send(path="/models", body=body, content_type="application/json")
    assert answer.status == 400
    assert answer.content["error"]


def test_models_are_listed_by_pages(client: Client, folder: Path) -> None:
    for number in range(5):
        load(client, f"m{number}", "colours")
    first = client.send("GET", "/models?limit=2").content
    assert [m["modelName"] for m in first["models"]] == ["m0", "m1"]
    last = client.send("GET", f"/models?limit=3&next_page_token={first['nextPageToken']}").content
    assert [m["modelName"] for m in last["models"]] == ["m2", "m3", "m4"]
    assert "nextPageToken" not in last
    assert client.send("GET", "/models?limit=many").status == 400


def many_models(folder: Path, count: int) -> list[str]:
    names = [f"model{number}" for number in range(count)]
    for name in names:
        write_small_bundle(folder / name, classes=tuple(f"{name}-{c}" for c in "bgr"))
    return names


def limit_for(folder: Path, models: int) -> int:
    """Megabytes in which so many small models fit, and no more."""
    return int(models * memory_of(folder) / 2**20) + 1


def test_the_least_recently_used_model_makes_room(tmp_path: Path) -> None:
    names = many_models(tmp_path, 3)
    with serving(tmp_path, memory_limit_mb=limit_for(tmp_path / names[0], 2)) as client:
        for name in (names[0], names[1], names[0], names[2]):
            assert ask(client, name).content["class"] == f"{name}-r"
        loaded = [client.send("GET", f"/models/{name}").content["loaded"] for name in names]
        assert loaded == [True, False, True]
        assert ask(client, names[1]).content["class"] == f"{names[1]}-r"
        assert b"darkroom_model_evictions_total 2.0" in client.send("GET", "/metrics").content


def test_a_model_that_can_never_fit_is_507(tmp_path: Path) -> None:
    write_small_bundle(tmp_path / "large")
    with serving(tmp_path, memory_limit_mb=1) as client:
        answer = load(client, "large", "large")
        assert answer.status == 507
        assert "--memory-limit-mb" in answer.content["error"]
        assert ask(client, "large").status == 507


def test_more_models_than_fit_answer_right_under_load(tmp_path: Path) -> None:
    names = many_models(tmp_path, 6)
    with serving(tmp_path, memory_limit_mb=limit_for(tmp_path / names[0], 2)) as client:

        async def all_of_them() -> list[tuple[str, Answer]]:
            asked = [name for _ in range(8) for name in names]
            calls = (asyncio.to_thread(ask, client, name) for name in asked)
            return list(zip(asked, await asyncio.gather(*calls), strict=True))

        for name, answer in asyncio.run(all_of_them()):
            assert (answer.status, answer.content["class"]) == (200, f"{name}-r")


def test_loading_and_unloading_disturbs_no_other_request(client: Client, folder: Path) -> None:
    stop = threading.Event()
    statuses: list[tuple[int, Any]] = []

    def go_on_asking() -> None:
        while not stop.is_set():
            answer = ask(client, "colours", "blue")
            statuses.append((answer.status, answer.content.get("class")))

    thread = threading.Thread(target=go_on_asking)
    thread.start()
    for _ in range(10):
        assert load(client, "other", str(folder / "farben.tar.gz")).status == 200
        assert client.send("DELETE", "/models/other").status == 200
    stop.set()
    thread.join()
    assert set(statuses) == {(200, "blue")}


def test_bundles_are_found_where_they_lie_and_nothing_else_is_listed(tmp_path: Path) -> None:
    """By the front door: nested, beside plain folders and a link that leads out."""
    write_small_bundle(tmp_path / "outside")
    models = tmp_path / "models"
    write_small_bundle(models / "first")
    write_small_bundle(models / "team" / "clothes")
    pack_small_bundle(models / "team" / "old.tar.gz", image_size=16, classes=("a", "b", "c"))
    (models / "notes").mkdir()
    (models / "notes" / "read.me").write_text("x")
    (models / "out").symlink_to(tmp_path / "outside")
    (models / "again").symlink_to(models / "first")
    (models / "circle").symlink_to("circle")
    os.mkfifo(models / "pipe.tar.gz")
    with running("--models", str(models)) as (supervisor, client):
        listed = client.send("GET", "/models").content["models"]
        names = [model["modelName"] for model in listed]
        assert names == ["again", "first", "team/clothes", "team/old.tar.gz"]
        for name in names:
            assert ask(client, name).status == 200, name
        assert client.send("GET", "/models/team/clothes").content["loaded"] is True
        assert client.send(path="/models/team/clothes/invoke", body=encoded()).status == 200
        unknown = ask(client, "frist")
        assert unknown.status == 404
        assert all(repr(name) in unknown.content["error"] for name in names)
        assert (ask(client, "notes").status, ask(client, "out").status) == (404, 400)
        for place in ("circle", "pipe.tar.gz", "x" * 300):
            assert load(client, "it", place).status == 400
            assert ask(client, place).status in (400, 404)
        assert client.send("DELETE", "/models/team/clothes").status == 200
        supervisor.terminate()
        said = supervisor.stdout.read()
        assert all(f"left_out model={name}" in said for name in ("out", "circle", "pipe.tar.gz"))


def test_names_of_models_do_not_fill_the_metrics(tmp_path: Path) -> None:
    write_small_bundle(tmp_path / "models" / "first")
    with serving(tmp_path / "models") as client:
        for number in range(MAX_MODELS + 10):
            assert load(client, f"name{number}", "first").status == 200
            assert client.send("DELETE", f"/models/name{number}").status == 200
        page = client.send("GET", "/metrics").content.decode()
        assert page.count("darkroom_images_total{") == MAX_MODELS + 1
        assert 'darkroom_images_total{model="(other)"}' in page


def test_a_model_that_does_not_load_in_its_time_holds_up_no_other(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("darkroom.serving.hosted_model.LOADING_SECONDS", 0.2)
    is_over = threading.Event()

    def hang(self: Predictor) -> None:
        if self.metadata.classes[0] == "blau":
            is_over.wait(60)

    monkeypatch.setattr(Predictor, "self_test", hang)
    try:
        with serving(folder) as client:
            for _ in range(3):
                assert ask(client, "farben.tar.gz").status == 500
            assert ask(client, "colours").status == 200
    finally:
        is_over.set()
