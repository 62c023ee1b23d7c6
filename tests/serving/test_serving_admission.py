"""Bodies that never come, or unpack to too much, cost nobody else anything."""

import asyncio
import contextlib
import gzip
import socket
import zlib
from collections.abc import Iterator

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from darkroom.models.prediction import Predictor
from darkroom.serving.admission import Admission
from darkroom.serving.app import create_app
from darkroom.serving.monitoring import ServingMetrics
from served import Client, encoded, served
from small_bundles import write_small_bundle

MB = 2**20


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    bundle = write_small_bundle(tmp_path_factory.mktemp("bundle") / "bundle")
    with served(create_app(Predictor.load(bundle, threads=1))) as found:
        yield found


def head(size: int) -> bytes:
    return (
        "POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
        f"Content-Length: {size}\r\n\r\n"
    ).encode()


def test_announced_bodies_that_do_not_come_take_nobodys_place(client: Client) -> None:
    with contextlib.ExitStack() as stack:
        for number in range(200):
            connection = socket.create_connection(("127.0.0.1", client.port), timeout=10)
            stack.enter_context(connection)
            connection.sendall(head(10 if number % 2 else 6 * MB) + b"x")
        for _ in range(5):
            assert client.send(body=encoded("red")).status == 200


def test_a_body_that_falls_silent_is_not_waited_for(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("darkroom.serving.admission.BODY_SILENCE_SECONDS", 0.1)
    with socket.create_connection(("127.0.0.1", client.port), timeout=10) as connection:
        connection.sendall(head(10) + b"x")
        assert connection.recv(65536).startswith(b"HTTP/1.1 408")


def test_a_body_that_drips_is_not_waited_for(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("darkroom.serving.admission.BODY_SILENCE_SECONDS", 0.3)
    with socket.create_connection(("127.0.0.1", client.port), timeout=0.1) as connection:
        connection.sendall(head(1000))
        answer = b""
        for _ in range(100):
            with contextlib.suppress(TimeoutError):
                answer += connection.recv(65536)
            if answer:
                break
            connection.sendall(b"x")
        assert answer.startswith(b"HTTP/1.1 408")


class Arriving:
    """A request whose body comes as the test lets it."""

    def __init__(self, **headers: str) -> None:
        self.parts: asyncio.Queue[bytes] = asyncio.Queue()
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "method": "POST", "headers": raw}
        self.request = Request(scope, self.receive)

    async def receive(self) -> dict[str, object]:
        part = await self.parts.get()
        return {"type": "http.request", "body": part, "more_body": bool(part)}


async def admitted(admission: Admission, arriving: Arriving) -> int:
    try:
        async with admission.admit(arriving.request) as body:
            return len(body)
    except HTTPException as error:
        return -error.status_code


def test_where_memory_is_full_the_body_that_takes_longest_makes_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("darkroom.serving.admission._BYTES", 4 * MB)

    async def play() -> tuple[list[int], int]:
        metrics = ServingMetrics()
        admission = Admission(requests=9, body_bytes=MB, metrics=metrics)
        slow = [Arriving() for _ in range(4)]
        tasks = [asyncio.create_task(admitted(admission, one)) for one in slow]
        for one in slow:
            one.parts.put_nowait(bytes(MB))
            await asyncio.sleep(0)
        while not all(one.parts.empty() for one in slow):
            await asyncio.sleep(0)
        quick = Arriving()
        quick.parts.put_nowait(bytes(1000))
        quick.parts.put_nowait(b"")
        got = await admitted(admission, quick)
        for one in slow:
            one.parts.put_nowait(b"")
        return await asyncio.gather(*tasks), got

    outcomes, got = asyncio.run(play())
    assert got == 1000
    assert outcomes == [-503, MB, MB, MB]


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("GZIP", lambda body: gzip.compress(body[:9]) + gzip.compress(body[9:])),
        ("deflate", zlib.compress),
        ("identity", lambda body: body),
    ],
)
def test_packed_bodies_are_unpacked(client: Client, encoding: str, pack: object) -> None:
    assert callable(pack)
    answer = client.send(body=pack(encoded("green")), headers={"Content-Encoding": encoding})
    assert (answer.status, answer.content["class"]) == (200, "green")


def test_a_packed_body_has_the_limit_of_one_that_is_not(client: Client) -> None:
    for bomb in (gzip.compress(bytes(7 * MB)), gzip.compress(bytes(4 * MB)) * 2):
        answer = client.send(body=bomb, headers={"Content-Encoding": "gzip"})
        assert answer.status == 413
        assert "unpacks to more than" in answer.content["error"]


def test_a_packed_body_of_many_parts_costs_nobody_much(client: Client) -> None:
    """200,000 empty ones, in 4 MB, took minutes: what follows a part was copied for each."""
    for parts, words in ((200_000, "1,000 parts"), (900, "is empty")):
        body = gzip.compress(b"", mtime=0) * parts
        answer = client.send(body=body, headers={"Content-Encoding": "gzip"})
        assert (answer.status, words in answer.content["error"]) == (400, True)
    large = b"".join(gzip.compress(encoded()[at : at + 9], mtime=0) for at in range(0, 900, 9))
    assert client.send(body=large, headers={"Content-Encoding": "gzip"}).status == 200


def test_what_follows_a_packed_body_is_not_left_out_unheard(client: Client) -> None:
    body = zlib.compress(encoded()) + b"more"
    answer = client.send(body=body, headers={"Content-Encoding": "deflate"})
    assert (answer.status, "1 parts" in answer.content["error"]) == (400, True)


@pytest.mark.parametrize("body", [b"no gzip", gzip.compress(b"x" * 99, mtime=0)[:-9]])
def test_a_body_that_is_not_packed_as_it_says_is_refused(client: Client, body: bytes) -> None:
    assert client.send(body=body, headers={"Content-Encoding": "gzip"}).status == 400


def test_other_encodings_are_answered_with_those_that_are_accepted(client: Client) -> None:
    answer = client.send(body=encoded(), headers={"Content-Encoding": "br"})
    assert answer.status == 415
    assert answer.headers["accept-encoding"] == "identity, gzip, deflate"
    assert "gzip" in answer.content["error"]
