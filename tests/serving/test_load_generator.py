"""The load generator of the benchmarks: it counts right, and finds wrong answers."""

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from benchmarks.load import Outcome, generate, is_right, percentile, read_plan

HOST = "127.0.0.1"


async def _answer(request: Request) -> Response:
    """What the body says: a class, or the status of an error; after "last" it hangs up."""
    word = (await request.body()).decode()
    if word.isdecimal():
        return JSONResponse({"error": "as asked"}, status_code=int(word))
    headers = {"Connection": "close"} if word == "last" else {}
    named = request.headers.get("x-name", word)
    return JSONResponse({"class": named, "probability": 0.75}, headers=headers)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    app = Starlette(routes=[Route("/asked", _answer, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", lifespan="off"))
    ready = threading.Event()
    startup = server.startup

    async def announce(sockets: object = None) -> None:
        await startup()
        ready.set()

    server.startup = announce  # type: ignore[method-assign]
    thread = threading.Thread(target=server.run)
    thread.start()
    assert ready.wait(10)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()


def ask(
    folder: Path, *, port: int, words: list[str], headers: dict[str, str], requests: int
) -> Outcome:
    """The outcome of asking for each of the words, with itself as the expected class."""
    planned = []
    for word in words:
        (folder / word).write_text(word)
        expected = {"class": word, "probability": 0.75}
        planned.append({"file": str(folder / word), "headers": headers, "expected": expected})
    file = folder / "plan.json"
    file.write_text(json.dumps({"requests": planned}))
    plan = read_plan(file, path="/asked", host=HOST)
    return asyncio.run(generate(plan, host=HOST, port=port, clients=3, requests=requests))


def test_every_request_is_sent_once_and_answered(port: int, tmp_path: Path) -> None:
    outcome = ask(tmp_path, port=port, words=["hat", "shoe"], headers={}, requests=101)
    summary = outcome.summary()
    assert summary["requests"] == len(outcome.latencies) == 101
    assert (summary["errors"], summary["wrong"]) == (0, 0)
    assert summary["rate"] == pytest.approx(101 / outcome.seconds)
    assert 0 < summary["p50"] <= summary["p95"] <= summary["p99"] <= outcome.seconds * 1000


def test_refusals_are_errors_and_no_part_of_the_rate(port: int, tmp_path: Path) -> None:
    outcome = ask(tmp_path, port=port, words=["hat", "503"], headers={}, requests=20)
    summary = outcome.summary()
    assert summary["statuses"] == {"200": 10, "503": 10}
    assert summary["errors"] == 10
    assert summary["rate"] == pytest.approx(10 / outcome.seconds)


def test_answers_to_somebody_elses_question_are_wrong(port: int, tmp_path: Path) -> None:
    mixed_up = {"X-Name": "hat"}
    outcome = ask(tmp_path, port=port, words=["hat", "shoe"], headers=mixed_up, requests=20)
    assert (outcome.wrong, outcome.summary()["errors"]) == (10, 0)


def test_a_connection_that_the_server_closes_is_opened_anew(port: int, tmp_path: Path) -> None:
    outcome = ask(tmp_path, port=port, words=["last"], headers={}, requests=10)
    assert outcome.summary()["statuses"] == {"200": 10}


def test_nobody_there_is_an_error_each(tmp_path: Path, free_tcp_port: int) -> None:
    outcome = ask(tmp_path, port=free_tcp_port, words=["hat"], headers={}, requests=5)
    assert outcome.summary()["statuses"] == {"broken": 5}
    assert outcome.summary()["rate"] == 0


def test_a_time_limit_ends_it(port: int, tmp_path: Path) -> None:
    (tmp_path / "hat").write_text("hat")
    file = tmp_path / "plan.json"
    file.write_text(json.dumps({"requests": [{"file": str(tmp_path / "hat")}]}))
    plan = read_plan(file, path="/asked", host=HOST)
    outcome = asyncio.run(generate(plan, host=HOST, port=port, clients=2, seconds=0.1))
    assert 0.1 <= outcome.seconds < 2
    assert outcome.latencies


def test_percentiles_are_values_that_occurred() -> None:
    values = [float(n) for n in range(1, 101)]
    assert [percentile(values, p=p) for p in (50, 99, 100)] == [50, 99, 100]
    assert percentile([3.0], p=99) == 3.0
    assert str(percentile([], p=50)) == "nan"


@pytest.mark.parametrize(
    ("body", "right"),
    [
        (b'{"class": "hat", "probability": 0.755}', True),
        (b'{"class": "hat", "probability": 0.80}', False),
        (b'{"class": "shoe", "probability": 0.75}', False),
        (b'{"predictions": []}', False),
        (b"[]", False),
        (b"hat", False),
    ],
)
def test_an_answer_has_to_say_what_was_expected(body: bytes, *, right: bool) -> None:
    assert is_right(body, expected={"class": "hat", "probability": 0.75}) is right
