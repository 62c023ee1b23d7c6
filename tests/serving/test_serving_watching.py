"""Request ids, log lines and metrics: what is told of requests, and what is not."""

import io
import json
import os
import select
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from darkroom.models.prediction import Predictor
from darkroom.serving.app import ServerContext, create_app
from darkroom.serving.logs import EventLog, UnreadStream
from served import Client, encoded, served
from small_bundles import write_small_bundle


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def client(tmp_path: Path, stream: io.StringIO) -> Iterator[Client]:
    predictor = Predictor.load(write_small_bundle(tmp_path / "bundle"))
    around = ServerContext(log=EventLog("json", stream=stream))
    with served(create_app(predictor, surroundings=around)) as client:
        yield client


def events(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize("header", ["X-Request-Id", "X-Amzn-SageMaker-Inference-Id"])
def test_the_callers_id_comes_back_and_is_logged(
    client: Client, stream: io.StringIO, header: str
) -> None:
    answer = client.send(body=encoded(), headers={header: "order-7"})
    assert answer.headers["x-request-id"] == "order-7"
    assert events(stream)[-1]["request_id"] == "order-7"


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, 'id"}{"', "é"])
def test_an_unusable_id_is_replaced(client: Client, given: str) -> None:
    answer = client.send(body=encoded(), headers={"X-Request-Id": given})
    assert len(answer.headers["x-request-id"]) == 32


def test_a_line_tells_what_happened_and_nothing_of_the_image(
    client: Client, stream: io.StringIO
) -> None:
    client.send(path="/invocations?top_k=2", body=encoded())
    client.send(path="/invocations", body=b"secret content")
    right, wrong = events(stream)
    assert right.keys() == {"time", "event", "request_id", "method", "route", "status", "ms"}
    assert (right["route"], right["status"], wrong["status"]) == ("/invocations", 200, 400)
    assert "secret" not in stream.getvalue()
    assert "top_k" not in stream.getvalue()


def test_pings_are_counted_but_not_logged(client: Client, stream: io.StringIO) -> None:
    client.send("GET", "/ping")
    assert events(stream) == []
    metrics = client.send("GET", "/metrics").content.decode()
    assert 'darkroom_requests_total{route="/ping",status="200"} 1.0' in metrics


def test_metrics_count_images_batches_and_refusals_in_few_series(client: Client) -> None:
    client.send(body=encoded())
    client.send(body=b"no image")
    for number in range(20):
        client.send("GET", f"/invented/{number}")
    answer = client.send("GET", "/metrics")
    metrics = answer.content.decode()
    assert answer.headers["content-type"].startswith("text/plain")
    assert 'darkroom_images_total{model="model"} 1.0' in metrics
    assert 'darkroom_requests_total{route="/invocations",status="400"} 1.0' in metrics
    assert 'darkroom_requests_total{route="other",status="404"} 20.0' in metrics
    assert "darkroom_batch_size_count 1.0" in metrics
    assert "invented" not in metrics


def test_what_nobody_reads_is_dropped_and_counted_and_nobody_waits_for_it() -> None:
    reading, writing = os.pipe()
    stream = UnreadStream(writing, missing=lambda lines: f"missing {lines}\n", most=1000)
    sent = 0
    while stream.dropped < 2:  # the pipe takes 64 KiB
        stream.write(f"{sent:099}\n")
        sent += 1
    with os.fdopen(reading, "rb") as reader:
        found = [reader.readline() for _ in range(sent - stream.dropped)]
        while not select.select([reading], [], [], 0.01)[0]:
            stream.write("and on\n")  # as soon as it has noticed that there is room
        assert [*map(int, found)] == [*range(sent - 2)]
        assert reader.readline() == b"missing %d\n" % stream.dropped
        assert reader.readline() == b"and on\n"
    stream.close()
    os.close(writing)


def test_a_reader_that_is_gone_costs_its_lines_alone() -> None:
    reading, writing = os.pipe()
    stream = UnreadStream(writing, missing=lambda lines: f"missing {lines}\n")
    os.close(reading)
    stream.write("to nobody\n")
    stream.close()
    assert stream.dropped == 1
    os.close(writing)


def test_text_lines_stay_one_line_each(stream: io.StringIO) -> None:
    EventLog("text", stream=stream).write("loaded", model="two\nlines", version="")
    EventLog("none", stream=stream).write("never")
    assert stream.getvalue().count("\n") == 1
    assert r"model='two\nlines' version=''" in stream.getvalue()
