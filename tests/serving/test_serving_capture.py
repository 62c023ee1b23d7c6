"""Some requests and their answers are stored, and no request suffers from it."""

import base64
import dataclasses
import errno
import io
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from moto import mock_aws

from darkroom.backends.storage.s3 import S3Store
from darkroom.base.errors import UserError
from darkroom.models.prediction import Predictor
from darkroom.serving.app import ServerContext, create_app
from darkroom.serving.capture import Capture, Exchange, capturing, is_sampled, line_of, store_at
from darkroom.serving.logs import EventLog
from darkroom.serving.monitoring import ServingMetrics
from darkroom.serving.settings import ServingSettings
from rehearsal.hosting.invocations import Exchange as RehearsedExchange
from rehearsal.hosting.invocations import captured
from served import Client, encoded, served
from small_bundles import write_small_bundle

EXCHANGE = Exchange("id-1", "image/png", b"\x89pixels", "application/json", b'{"class": "red"}')


class Memory:
    """A store that keeps, fails or waits."""

    def __init__(self, *, error: Exception | None = None) -> None:
        self.files: dict[str, bytes] = {}
        self.error = error
        self.go_on = threading.Event()
        self.go_on.set()

    def put(self, name: str, content: bytes) -> None:
        assert self.go_on.wait(10)
        if self.error:
            raise self.error
        self.files[name] = content

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for file in self.files.values() for line in file.splitlines()]


class Counts:
    """What a capture tells."""

    def __init__(self) -> None:
        self.stored, self.lost = 0, 0
        self.reasons: list[str] = []

    def store(self, count: int) -> None:
        self.stored += count

    def lose(self, count: int, reason: str) -> None:
        self.lost += count
        self.reasons.append(reason)


def capture_into(store: Any, counts: Counts, *, percent: float = 100) -> Capture:
    return Capture(store, percent=percent, on_stored=counts.store, on_lost=counts.lose)


def test_what_people_sent_is_for_nobody_elses_eyes(tmp_path: Path) -> None:
    """Whatever the umask is."""
    counts = Counts()
    before = os.umask(0)
    try:
        capture = capture_into(store_at(str(tmp_path / "kept")), counts)
        capture.record(EXCHANGE)
        capture.close()
    finally:
        os.umask(before)
    (file,) = (tmp_path / "kept").rglob("*.jsonl")
    assert counts.stored == 1
    assert file.stat().st_mode & 0o777 == 0o600


def test_what_is_recorded_is_stored_at_the_end_in_few_files() -> None:
    store, counts = Memory(), Counts()
    capture = capture_into(store, counts)
    for _ in range(20):
        capture.record(EXCHANGE)
    capture.close()
    assert (len(store.files), len(store.lines()), counts.stored) == (1, 20, 20)


def test_a_file_is_stored_when_it_is_old_enough() -> None:
    stored = threading.Event()
    store = Memory()
    capture = Capture(
        store,
        percent=100,
        on_stored=lambda count: stored.set(),
        on_lost=lambda count, reason: None,
        file_seconds=0.01,
    )
    capture.record(EXCHANGE)
    assert stored.wait(10)
    capture.close()


def test_lines_have_the_shape_that_the_rehearsal_gives_them() -> None:
    line = json.loads(line_of(EXCHANGE))
    options = {
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
        "CaptureContentTypeHeader": {"JsonContentTypes": ["application/json"]},
    }
    theirs = captured(
        RehearsedExchange(
            "e", "v", EXCHANGE.sent_type, EXCHANGE.sent, EXCHANGE.answer_type, EXCHANGE.answer
        ),
        config=options,
    )
    assert line["captureData"] == theirs["captureData"]
    assert line["eventVersion"] == theirs["eventVersion"]
    assert line["eventMetadata"].keys() >= theirs["eventMetadata"].keys()
    sent = line["captureData"]["endpointInput"]
    assert base64.b64decode(sent["data"]) == EXCHANGE.sent


def test_json_that_is_not_utf8_is_kept_too() -> None:
    exchange = Exchange("a", "application/json", '{"url": "x"}'.encode("utf-16"), "text/csv", b"a")
    data = json.loads(line_of(exchange))["captureData"]
    assert data["endpointInput"]["encoding"] == "BASE64"
    assert data["endpointOutput"]["encoding"] == "CSV"


def test_the_share_that_is_stored_is_chosen_by_the_id_and_close_to_what_was_asked() -> None:
    ids = [f"request-{number}" for number in range(4000)]
    chosen = [request for request in ids if is_sampled(request, percent=25)]
    assert 900 < len(chosen) < 1100
    assert [request for request in ids if is_sampled(request, percent=25)] == chosen
    assert not any(is_sampled(request, percent=0) for request in ids)
    assert all(is_sampled(request, percent=100) for request in ids)


def test_a_store_that_fails_loses_and_says_why() -> None:
    counts = Counts()
    capture = capture_into(Memory(error=OSError("no space left")), counts)
    capture.record(EXCHANGE)
    capture.close()
    assert (counts.stored, counts.lost, counts.reasons) == (0, 1, ["no space left"])


def test_a_store_that_is_too_slow_loses_what_it_cannot_take_and_delays_nobody() -> None:
    store, counts = Memory(), Counts()
    store.go_on.clear()
    capture = Capture(
        store, percent=100, on_stored=counts.store, on_lost=counts.lose, file_seconds=0
    )
    for _ in range(1000):
        capture.record(EXCHANGE)
    assert counts.lost >= 1000 - 2 * 256
    store.go_on.set()
    capture.close()
    assert counts.stored + counts.lost == 1000


def test_a_store_that_stands_still_keeps_no_more_than_its_share_of_memory() -> None:
    store, counts = Memory(), Counts()
    store.go_on.clear()
    capture = Capture(
        store, percent=100, on_stored=counts.store, on_lost=counts.lose, file_seconds=0
    )
    large = dataclasses.replace(EXCHANGE, sent=bytes(6 * 2**20))
    for _ in range(100):
        capture.record(large)
    assert counts.lost > 100 - 64 // 6 - 3  # one or two are in the thread's hands
    store.go_on.set()
    capture.close()
    assert counts.stored + counts.lost == 100


def test_a_full_disk_is_told_in_the_systems_words_without_the_names_of_files() -> None:
    counts = Counts()
    full = OSError(errno.ENOSPC, "No space left on device", "/kept/2026/11/30/20/59-59-abc.jsonl")
    capture = capture_into(Memory(error=full), counts)
    capture.record(EXCHANGE)
    capture.close()
    assert counts.reasons == ["No space left on device"]


@pytest.fixture
def predictor(tmp_path: Path) -> Predictor:
    return Predictor.load(write_small_bundle(tmp_path / "bundle"))


def test_a_server_stores_requests_in_a_folder(predictor: Predictor, tmp_path: Path) -> None:
    place, log, metrics = tmp_path / "captured", EventLog("none"), ServingMetrics()
    settings = ServingSettings(capture=str(place))
    with capturing(settings, log=log, metrics=metrics) as on_exchange:
        around = ServerContext(settings, metrics=metrics, on_exchange=on_exchange)
        with served(create_app(predictor, surroundings=around)) as client:
            client.send(body=encoded("red"), headers={"X-Request-Id": "seven"})
            client.send(body=b"refused")
    (file,) = place.rglob("*.jsonl")
    (line,) = file.read_text().splitlines()
    stored = json.loads(line)
    assert stored["eventMetadata"]["inferenceId"] == "seven"
    assert json.loads(stored["captureData"]["endpointOutput"]["data"])["class"] == "red"
    assert b"darkroom_captured_total 1.0" in metrics.text()


def test_a_folder_that_fails_for_a_while_is_told_of_once_and_no_request_suffers(
    predictor: Predictor, tmp_path: Path
) -> None:
    place, stream, metrics = tmp_path / "kept", io.StringIO(), ServingMetrics()
    settings = ServingSettings(capture=str(place), maximum_body_bytes=2**23)
    large = encoded("red", kind="BMP", size=(1600, 1600))  # fills a file
    with capturing(settings, log=EventLog("text", stream=stream), metrics=metrics) as on_exchange:
        around = ServerContext(settings, metrics=metrics, on_exchange=on_exchange)
        with served(create_app(predictor, surroundings=around)) as client:
            place.rmdir()
            place.write_text("in the way")
            for number in range(1, 4):
                assert client.send(body=large).content["class"] == "red"
                _wait_until(client, f"darkroom_capture_lost_total {number}.0")
            place.unlink()
            assert client.send(body=large).content["class"] == "red"
            _wait_until(client, "darkroom_captured_total 1.0")
    lines = [line.split(" ", 1)[1] for line in stream.getvalue().splitlines()]
    assert lines == [
        f"capture_lost reason='Not a directory' place={place}",
        "capture_resumed lost=3",
    ]
    assert len(list(place.rglob("*.jsonl"))) == 1


def _wait_until(client: Client, line: str) -> None:
    until = time.monotonic() + 20
    while line not in client.send("GET", "/metrics").content.decode():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_folder_that_cannot_be_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="capture is"):
        store_at(str(tmp_path / "file" / "below"))


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with mock_aws():
        store = store_at("s3://kept/below")
        assert isinstance(store, S3Store)
        store.client.create_bucket(Bucket="kept")
        yield store.client


def test_requests_are_stored_on_s3(s3: Any) -> None:
    counts = Counts()
    capture = capture_into(store_at("s3://kept/below"), counts)
    capture.record(EXCHANGE)
    capture.close()
    (item,) = s3.list_objects_v2(Bucket="kept")["Contents"]
    assert item["Key"].startswith("below/20")
    assert counts.stored == 1


def test_a_bucket_that_is_not_there_is_said_once(s3: Any) -> None:
    stream, metrics = io.StringIO(), ServingMetrics()
    settings = ServingSettings(capture="s3://missing/below")
    with capturing(settings, log=EventLog("text", stream=stream), metrics=metrics) as on_exchange:
        around = ServerContext(settings, metrics=metrics, on_exchange=on_exchange)
        assert around.on_exchange is on_exchange
        _exchange_thrice(on_exchange)
    assert stream.getvalue().count("capture_lost") == 1
    assert "missing" in stream.getvalue()
    assert b"darkroom_capture_lost_total 3.0" in metrics.text()


def _exchange_thrice(on_exchange: Any) -> None:
    from starlette.requests import Request
    from starlette.responses import JSONResponse

    for number in range(3):
        scope = {"type": "http", "headers": [], "request_id": str(number)}
        on_exchange(Request(scope), b"body", JSONResponse({}))


def test_nothing_is_stored_unless_that_was_asked_for(predictor: Predictor, tmp_path: Path) -> None:
    with served(create_app(predictor)) as client:
        assert isinstance(client, Client)
        client.send(body=encoded())
    assert not list(tmp_path.rglob("*.jsonl"))
