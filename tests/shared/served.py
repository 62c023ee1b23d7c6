"""A server in a thread or as a process, and a client that sends to it what it is told."""

import contextlib
import http.client
import io
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import uvicorn
from PIL import Image

from darkroom.serving.process import HeaderTimeoutProtocol


def encoded(colour: str = "red", *, kind: str = "PNG", size: tuple[int, int] = (24, 20)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, kind)
    return stream.getvalue()


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    content: Any


@dataclass(frozen=True)
class Client:
    port: int

    def send(
        self,
        method: str = "POST",
        path: str = "/invocations",
        *,
        body: Any = None,
        content_type: str | None = "image/png",
        custom_attributes: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        headers = dict(headers or {})
        if content_type:
            headers["Content-Type"] = content_type
        if custom_attributes:
            headers["X-Amzn-SageMaker-Custom-Attributes"] = custom_attributes
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port)) as connection:
            connection.request(method, path, body=body, headers=headers)
            response = connection.getresponse()
            content = response.read()
            return Answer(
                response.status,
                {name.lower(): value for name, value in response.getheaders()},
                _parsed(content, kind=response.getheader("Content-Type", "")),
            )


def _parsed(content: bytes, *, kind: str) -> Any:
    if kind != "application/json":
        return content
    return json.loads(content) if content else None


@contextlib.contextmanager
def served(app: Any) -> Iterator[Client]:
    """The application on a free port, in a thread."""
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="critical", http=HeaderTimeoutProtocol, ws="none")
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield Client(listening.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()


def program(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "darkroom.serving.program", *arguments],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
