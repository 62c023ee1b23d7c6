"""A web server on the loopback that answers by a table, and counts who connects."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field


@dataclass
class AnsweringServer:
    """`answers` by path: what is sent, in parts, with a pause between them."""

    answers: dict[str, list[bytes]] = field(default_factory=dict)
    pause: float = 0.0
    port: int = 0
    connections: int = 0
    heads: list[str] = field(default_factory=list)

    def url(self, path: str = "/", *, host: str = "127.0.0.1") -> str:
        """Of a path."""
        return f"http://{host}:{self.port}{path}"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            for part in self.answers.get(head.split()[1], [answer(b"", status="404 Not Found")]):
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(self.pause)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def answer(body: bytes, *headers: str, status: str = "200 OK", length: int | None = None) -> bytes:
    """A whole answer of HTTP/1.1."""
    size = len(body) if length is None else length
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {size}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def redirect(to: str) -> bytes:
    """An answer that leads elsewhere."""
    return answer(b"", f"Location: {to}", status="302 Found")


@contextlib.asynccontextmanager
async def answering(
    answers: dict[str, list[bytes]] | None = None, *, pause: float = 0.0
) -> AsyncIterator[AnsweringServer]:
    """The server while the block runs."""
    server = AnsweringServer(answers or {}, pause=pause)
    listening = await asyncio.start_server(server.handle, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        await listening.wait_closed()
