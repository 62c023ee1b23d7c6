"""Send cases to a server while a well-behaved client asks it, and note what happens."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from typing import TypeAlias

from hostile.bodies import BodyCase
from hostile.http_cases import RawCase
from served import Client, encoded

Case: TypeAlias = BodyCase | RawCase

CLOSED = 0
"""For a status: the connection was closed without an answer."""

PATIENCE = 20.0


@dataclass(frozen=True)
class Outcome:
    """What one case was answered."""

    case: Case
    status: int
    content: bytes
    seconds: float

    @property
    def fault(self) -> str:
        """What is wrong with the answer; empty: nothing."""
        case = self.case
        if self.status == CLOSED:
            return "" if isinstance(case, RawCase) else "closed without an answer"
        if 200 <= self.status < 300:
            refused = isinstance(case, BodyCase) and case.is_refused
            return f"was answered {self.status}" if refused else ""
        if not 400 <= self.status < 500:
            return f"was answered {self.status}: {self.content[:200]!r}"
        return "" if _has_reason(self.content) else f"has no reason: {self.content[:100]!r}"


def _has_reason(content: bytes) -> bool:
    try:
        return bool(json.loads(content)["error"])
    except (ValueError, KeyError, TypeError):
        return False


def attack(client: Client, case: Case) -> Outcome:
    """One case on a connection of its own."""
    started = time.monotonic()
    status, content = _exchange(client.port, case)
    return Outcome(case, status, content, time.monotonic() - started)


def _exchange(port: int, case: Case) -> tuple[int, bytes]:
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        with contextlib.suppress(ConnectionError):  # refused while it is still being sent
            connection.sendall(_bytes_of(case))
            if isinstance(case, RawCase) and case.is_ended:
                connection.shutdown(socket.SHUT_WR)
        return _answer(connection)


def _answer(connection: socket.socket) -> tuple[int, bytes]:
    response = HTTPResponse(connection)
    try:
        response.begin()
        return response.status, response.read()
    except (HTTPException, ConnectionError, OSError) as error:
        if isinstance(error, TimeoutError):
            return 599, b"no answer in time"
        return CLOSED, b""
    finally:
        response.close()


def _bytes_of(case: Case) -> bytes:
    if isinstance(case, RawCase):
        return case.content
    headers = {"Host": "localhost", "Content-Type": case.content_type, **case.headers}
    headers |= {"Content-Length": str(len(case.body)), "Connection": "close"}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"{case.method} {case.path} HTTP/1.1\r\n{lines}\r\n"
    return head.encode() + case.body


@dataclass
class Bystander:
    """A well-behaved client's experiences."""

    answers: int = 0
    failures: list[str] = field(default_factory=list)
    slowest: float = 0


@contextlib.contextmanager
def bystander(client: Client, *, headers: Mapping[str, str] | None = None) -> Iterator[Bystander]:
    """A client that asks all the while, and knows what is right."""
    seen, is_over = Bystander(), threading.Event()

    def ask() -> None:
        while not is_over.is_set():
            for colour in ("red", "green", "blue"):
                _ask_once(client, colour, headers=headers, seen=seen)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield seen
    finally:
        is_over.set()
        thread.join()


def _ask_once(
    client: Client, colour: str, *, headers: Mapping[str, str] | None, seen: Bystander
) -> None:
    pure = {"red": "#ff0000", "green": "#00ff00", "blue": "#0000ff"}[colour]
    started = time.monotonic()
    try:
        answer = client.send(body=encoded(pure), headers=headers)
    except (OSError, HTTPException) as error:
        seen.failures.append(repr(error))
        return
    seen.slowest = max(seen.slowest, time.monotonic() - started)
    seen.answers += 1
    if answer.status != 200 or answer.content["class"] != colour:
        seen.failures.append(f"{answer.status} {answer.content}")


@contextlib.contextmanager
def held(client: Client, cases: Sequence[RawCase]) -> Iterator[list[Outcome]]:
    """Clients that never go on, connected during the block; afterwards, their outcomes."""
    started, outcomes = time.monotonic(), list[Outcome]()
    with contextlib.ExitStack() as stack:
        connections = []
        for case in cases:
            connection = socket.create_connection(("127.0.0.1", client.port), timeout=PATIENCE)
            connections.append(stack.enter_context(connection))
            connection.sendall(case.content)
        yield outcomes
        for case, connection in zip(cases, connections, strict=True):
            status, content = _answer(connection)
            outcomes.append(Outcome(case, status, content, time.monotonic() - started))
