"""The limits of HTTP itself: heads that are too large, too slow, or none at all."""

import contextlib
import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from darkroom.models.prediction import Predictor
from darkroom.serving import process
from darkroom.serving.app import create_app
from darkroom.serving.limits import MAX_CONNECTIONS, MAX_HEADER_BYTES
from served import Client, encoded, served
from small_bundles import write_small_bundle


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    bundle = write_small_bundle(tmp_path_factory.mktemp("model") / "bundle")
    with served(create_app(Predictor.load(bundle))) as client:
        yield client


def talk(client: Client, *parts: bytes) -> bytes:
    """Send bytes as they are; all that comes back until the server closes."""
    return pour(client, *parts)[0]


def pour(client: Client, *parts: bytes) -> tuple[bytes, bool]:
    """As `talk`, and whether the server took all of it."""
    taken = True
    with socket.create_connection(("127.0.0.1", client.port), timeout=20) as connection:
        try:
            for part in parts:
                connection.sendall(part)
        except (BrokenPipeError, ConnectionResetError):
            taken = False  # the server has heard enough
        received = b""
        try:
            while chunk := connection.recv(65536):
                received += chunk
        except ConnectionResetError:
            pass
        return received, taken


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def test_ten_thousand_bytes_of_headers_are_fine(client: Client) -> None:
    answer = client.send(body=encoded(), headers={"X-Padding": "a" * 10_000})
    assert answer.status == 200


@pytest.mark.parametrize(
    "head",
    [
        b"X-Long: " + b"a" * (MAX_HEADER_BYTES + 10) + b"\r\n\r\n",
        b"X-Endless: " + b"a" * (4 * MAX_HEADER_BYTES),
        b"".join(b"X-%d: a\r\n" % number for number in range(20_000)) + b"\r\n",
    ],
    ids=["long", "endless", "many"],
)
def test_headers_beyond_the_limit_are_refused_and_the_connection_closed(
    client: Client, head: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[bytes] = []
    close = process.HeaderTimeoutProtocol._close

    def noted(self: process.HeaderTimeoutProtocol, status: bytes, reason: bytes) -> None:
        refused.append(status)
        close(self, status, reason)

    monkeypatch.setattr(process.HeaderTimeoutProtocol, "_close", noted)
    answer = talk(client, b"GET /ping HTTP/1.1\r\nHost: x\r\n", head)
    assert {status.split()[0] for status in refused} == {b"431"}
    assert status_of(answer or b"HTTP/1.1 431 ") == 431  # a reset may overtake it
    assert client.send("GET", "/ping").status == 200


@pytest.mark.parametrize("text", [b"no http at all\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\0\1\2"])
def test_what_is_no_http_is_told_so_in_json(client: Client, text: bytes) -> None:
    answer = talk(client, text)
    assert status_of(answer) == 400
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]


def test_a_head_that_does_not_arrive_in_time_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "HEADER_SECONDS", 0.2)
    bundle = write_small_bundle(tmp_path / "bundle")
    with served(create_app(Predictor.load(bundle))) as client:
        assert status_of(talk(client, b"GET /ping HTTP/1.1\r\nHost:")) == 408
        assert status_of(talk(client)) == 408
        assert client.send(body=encoded()).status == 200


def test_an_answered_connection_may_ask_again(client: Client) -> None:
    ask = b"GET /ping HTTP/1.1\r\nHost: x\r\n"
    answers = talk(client, ask + b"\r\n", ask + b"Connection: close\r\n\r\n")
    assert answers.count(b"HTTP/1.1 200 OK") == 2


def test_a_refused_body_that_never_ends_is_not_read_for_ever(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_DISCARDED_BYTES", 2**20)
    head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"100000\r\n" + bytes(2**20) + b"\r\n"
    _, taken = pour(client, head, *[chunk] * 64)
    assert not taken
    assert client.send("GET", "/ping").status == 200


def test_one_address_cannot_take_all_connections(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert process.MAX_CONNECTIONS_OF_ONE_ADDRESS < MAX_CONNECTIONS / 2
    monkeypatch.setattr(process, "MAX_CONNECTIONS_OF_ONE_ADDRESS", 8)
    with contextlib.ExitStack() as held:
        for _ in range(8):
            held.enter_context(socket.create_connection(("127.0.0.1", client.port), timeout=20))
        answer = talk(client)
        assert status_of(answer) == 503
        assert b"from this address" in answer
    until = time.monotonic() + 20
    ask = b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    while status_of(talk(client, ask)) != 200:
        assert time.monotonic() < until


def test_a_body_is_read_whatever_its_chunks_and_trailers(client: Client) -> None:
    image = encoded()
    head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    head += b"Content-Type: image/png\r\n"
    head += b"Transfer-Encoding: chunked\r\nTrailer: X-Model\r\nExpect: 100-continue\r\n\r\n"
    bytewise = b"".join(b"1;a=b\r\n%c\r\n" % byte for byte in image)
    answer = talk(client, head, bytewise, b"0\r\nX-Model: other\r\nHost: evil\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")
    assert b'"class":"red"' in answer


@pytest.mark.parametrize(
    "body",
    [b"0x3\r\nabc\r\n", b"3\nabc\n", b"3\r\nabcX\r\n", b"-1\r\n", b"f" * 19 + b"\r\n"],
)
def test_a_body_that_is_no_http_is_told_so(client: Client, body: bytes) -> None:
    head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = talk(client, head + body)
    assert status_of(answer) == 400
    assert b"no valid HTTP" in answer
    assert client.send("GET", "/ping").status == 200


def test_a_whole_request_is_answered_before_what_is_wrong_behind_it(client: Client) -> None:
    image = encoded()
    ask = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(image)
    answer = talk(client, ask + image + b"\0no http\r\n\r\n" + ask + image)
    assert re.findall(rb"HTTP/1.1 (\d+) ", answer) == [b"200"]
    assert b'"class":"red"' in answer


def test_a_wish_for_another_protocol_is_answered_in_this_one(client: Client) -> None:
    """Java's client adds it to every request, unless it is told not to."""
    wish = b"Host: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    answer = talk(client, b"GET /ping HTTP/1.1\r\n" + wish + b"\r\n")
    assert status_of(answer) == 200
    image = encoded()
    post = b"POST /invocations HTTP/1.1\r\n" + wish + b"Content-Length: %d\r\n\r\n" % len(image)
    answer = talk(client, post + image)
    assert status_of(answer) == 400
    assert b"Upgrade" in answer


@pytest.mark.parametrize(
    "name", ["Content-Type", "X-Amzn-SageMaker-Custom-Attributes", "Content-Encoding"]
)
def test_a_header_with_two_values_is_refused(client: Client, name: str) -> None:
    image = encoded()
    head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    head += b"".join(f"{name}: {value}\r\n".encode() for value in ("identity", "gzip"))
    answer = talk(client, head + b"Content-Length: %d\r\n\r\n" % len(image) + image)
    assert status_of(answer) == (415 if name == "Content-Encoding" else 400)


def test_requests_in_one_go_are_answered_in_their_order(client: Client) -> None:
    """Pipelined; each is the next one's predecessor, also where it is refused."""
    image = encoded("blue")
    ask = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
    right = ask + b"Content-Length: %d\r\n\r\n%s" % (len(image), image)
    wrong = ask + b"Content-Length: 3\r\n\r\nabc"
    end = b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answers = talk(client, right + wrong + right + end)
    statuses = [int(part[:3]) for part in answers.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [200, 400, 200, 404]
