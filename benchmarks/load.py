"""A load generator: one process that keeps N connections busy with requests from a plan.

    python -m benchmarks.load http://127.0.0.1:8080/invocations --plan plan.json \\
        --clients 8 --seconds 5

A closed loop: each client sends its next request when the last one is answered. The plan
lists requests; clients take them in turn, over and over. JSON to standard output. Every
answer is looked at: its status, and, where the plan says what is expected, what it says.

    {"requests": [{"file": "a.jpg", "type": "image/jpeg", "headers": {…},
                   "expected": {"class": "dress", "probability": 0.31}}, …]}
"""

import argparse
import asyncio
import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, cast
from urllib.parse import urlsplit

import httptools
import numpy as np
import uvloop

TOLERANCE = 0.01
"""Of a probability: float32 on another engine stays below 1e-4."""
_REQUEST_SECONDS = 60.0
_OK = 200


@dataclass(frozen=True)
class Planned:
    """A request as it goes over the wire, and what its answer has to say."""

    content: bytes
    expected: Mapping[str, Any] | None


@dataclass
class Outcome:
    """What became of the requests."""

    latencies: list[float] = field(default_factory=list)
    """Seconds, of those that were answered with 200."""
    statuses: Counter[str] = field(default_factory=Counter)
    """By status; 'broken' where there was no answer."""
    wrong: int = 0
    """Answered with 200, but not with what was expected."""
    seconds: float = 0.0
    """From the first request to the last answer."""

    def summary(self) -> dict[str, Any]:
        """Requests a second and percentiles, in ms, of the answers with 200."""
        answered = sum(self.statuses.values())
        return {
            "requests": answered,
            "errors": answered - len(self.latencies),
            "wrong": self.wrong,
            "statuses": dict(self.statuses),
            "seconds": self.seconds,
            "rate": len(self.latencies) / self.seconds if self.seconds else 0.0,
            **{f"p{p}": percentile(self.latencies, p=p) * 1000 for p in (50, 95, 99)},
        }


def percentile(values: Sequence[float], *, p: float) -> float:
    """The smallest value that at least p % do not exceed (nearest rank); nan without values."""
    return float(np.percentile(values, p, method="inverted_cdf")) if values else float("nan")


class Connection(asyncio.Protocol):
    """A keep-alive connection with one request under way."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._body = bytearray()
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    @classmethod
    async def open(cls, *, host: str, port: int) -> Self:
        """Connect; raises OSError."""
        _, connection = await asyncio.get_running_loop().create_connection(cls, host, port)
        return connection

    async def ask(self, content: bytes) -> tuple[int, bytes]:
        """Status and body of the answer; raises OSError where none comes."""
        if self._transport is None or self._transport.is_closing():
            raise ConnectionError("closed")
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(content)
        async with asyncio.timeout(_REQUEST_SECONDS):
            return await self._answer

    @property
    def reusable(self) -> bool:
        """Whether another request can follow."""
        return self._transport is not None and not self._transport.is_closing()

    def close(self) -> None:
        """Now."""
        if self._transport:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.connection_lost(error)
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer and not self._answer.done():
            self._answer.set_exception(ConnectionError(str(error)))

    def on_message_begin(self) -> None:
        self._body.clear()

    def on_body(self, part: bytes) -> None:
        self._body += part

    def on_message_complete(self) -> None:
        if self._answer and not self._answer.done():
            self._answer.set_result((self._parser.get_status_code(), bytes(self._body)))
        if not self._parser.should_keep_alive() and self._transport:
            self._transport.close()


async def generate(
    plan: Sequence[Planned],
    *,
    host: str,
    port: int,
    clients: int,
    seconds: float = float("inf"),
    requests: int | None = None,
) -> Outcome:
    """Keep `clients` connections busy for so long, or for so many requests."""
    outcome = Outcome()
    turns = itertools.islice(itertools.cycle(plan), requests)
    started = time.perf_counter()
    end = started + seconds
    work = (_client(turns, host=host, port=port, end=end, outcome=outcome) for _ in range(clients))
    await asyncio.gather(*work)
    outcome.seconds = time.perf_counter() - started
    return outcome


async def _client(
    turns: Iterator[Planned], *, host: str, port: int, end: float, outcome: Outcome
) -> None:
    connection: Connection | None = None
    while time.perf_counter() < end and (planned := next(turns, None)):
        started = time.perf_counter()
        try:
            if connection is None or not connection.reusable:
                connection = await Connection.open(host=host, port=port)
            status, body = await connection.ask(planned.content)
        except OSError:  # TimeoutError is one
            outcome.statuses["broken"] += 1
            connection = _dropped(connection)
            await asyncio.sleep(0)
            continue
        elapsed = time.perf_counter() - started
        outcome.statuses[str(status)] += 1
        if status == _OK:
            outcome.latencies.append(elapsed)
            outcome.wrong += not is_right(body, expected=planned.expected)
    _dropped(connection)


def _dropped(connection: Connection | None) -> None:
    if connection:
        connection.close()


def is_right(body: bytes, *, expected: Mapping[str, Any] | None) -> bool:
    """Whether an answer names the expected class and, nearly, its probability."""
    if expected is None:
        return True
    try:
        answer = json.loads(body)
        close = abs(answer["probability"] - expected["probability"]) <= TOLERANCE
        return bool(close and answer["class"] == expected["class"])
    except (ValueError, KeyError, TypeError):
        return False


def read_plan(file: Path, *, path: str, host: str) -> list[Planned]:
    """The requests of a plan; each file is read once."""
    bodies: dict[str, bytes] = {}
    planned = []
    for request in json.loads(file.read_text())["requests"]:
        name = request["file"]
        body = bodies.setdefault(name, b"") or Path(name).read_bytes()
        bodies[name] = body
        headers = {
            "Host": host,
            "Content-Type": request.get("type", "image/jpeg"),
            "Content-Length": str(len(body)),
            "Accept": "application/json",
            **request.get("headers", {}),
        }
        lines = [f"POST {path} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items()), "", ""]
        content = "\r\n".join(lines).encode() + body
        planned.append(Planned(content, expected=request.get("expected")))
    return planned


def main() -> None:
    """Generate load, and print what became of it."""
    options = _parser().parse_args()
    address = urlsplit(options.url)
    host, port = address.hostname or "127.0.0.1", address.port or 80
    plan = read_plan(options.plan, path=address.path, host=address.netloc)
    place = {"host": host, "port": port, "clients": options.clients}

    async def both() -> Outcome:
        await generate(plan, **place, seconds=options.warm_up)
        return await generate(plan, **place, seconds=options.seconds, requests=options.requests)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(both()).summary()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("--plan", type=Path, required=True)
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--requests", type=int, help="end after so many")
    parser.add_argument("--warm-up", type=float, default=0, help="seconds that do not count")
    return parser


if __name__ == "__main__":
    sys.exit(main())
