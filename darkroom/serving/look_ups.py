"""Looking up names so that one that never answers holds up nothing but its own request.

A look-up of the C library cannot be ended: with the defaults of resolv.conf it may take half
a minute. In the event loop's own few threads it would delay other look-ups, and the end of
the server. So each has a thread that nobody waits for at the end.
"""

import asyncio
import contextlib
import socket
from threading import Thread
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

_AT_ONCE = 32
"""Threads; who comes later waits for one, as long as its request may take."""

_NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV


class LookUps(AbstractResolver):
    """A resolver for aiohttp, to be shared by all requests of one event loop."""

    def __init__(self) -> None:
        self._turn = asyncio.Semaphore(_AT_ONCE)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """All addresses of a name.

        Raises:
            OSError: it has none, or nobody says so.
        """
        await self._turn.acquire()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[Any]] = loop.create_future()

        def finish(found: list[Any] | Exception) -> None:
            self._turn.release()  # only now: a request that gave up leaves its thread behind
            if answer.cancelled():
                return
            if isinstance(found, Exception):
                answer.set_exception(found)
            else:
                answer.set_result(found)

        def look_up() -> None:
            found = _addresses(host, port=port, family=family)
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(finish, found)

        Thread(target=look_up, name="look-up", daemon=True).start()
        return [_result(found, host=host, port=port) for found in await answer]

    async def close(self) -> None:
        """Nothing is held open."""


def _addresses(host: str, *, port: int, family: int) -> list[Any] | Exception:
    kind, flags = socket.SOCK_STREAM, socket.AI_ADDRCONFIG
    try:
        return socket.getaddrinfo(host, port, family=family, type=kind, flags=flags)
    except (OSError, ValueError) as error:  # ValueError: no name can be written so
        return error


def _result(found: tuple[Any, ...], *, host: str, port: int) -> ResolveResult:
    family, _, protocol, _, address = found
    return ResolveResult(
        hostname=host, host=address[0], port=port, family=family, proto=protocol, flags=_NUMERIC
    )
