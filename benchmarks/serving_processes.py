"""Starting a server for a benchmark, and looking at what its processes take."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

READY_SECONDS = 90
_LOOK_SECONDS = 0.005
_END_SECONDS = 20
_OK = 200


@dataclass(frozen=True)
class Launch:
    """How a server is started; {port} in its command and environment is filled in."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    ping: str = "/ping"
    path: str = "/invocations"
    folder: str = "."
    """Where it works; multi-model-server writes logs/ there."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Written before the start, with {port} filled in; text by path."""


@dataclass(frozen=True)
class Server:
    """A server that answers."""

    process: "subprocess.Popen[bytes]"
    url: str
    """Of the path that images are posted to."""
    ready_seconds: float
    """From its start to the first 200 of its ping."""


class NotReadyError(Exception):
    """A server ended, or did not answer in time; says where its log is."""


@contextlib.contextmanager
def running(launch: Launch, *, log: Path) -> Iterator[Server]:
    """Start a server on a free port of 127.0.0.1, wait until it is ready, end all of it.

    Raises:
        NotReadyError: it never was.
    """
    port = _free_port()
    for path, text in launch.files.items():
        Path(path).write_text(text.replace("{port}", str(port)))
    command = [part.replace("{port}", str(port)) for part in launch.command]
    environment = {**os.environ, **launch.environment}
    base = f"http://127.0.0.1:{port}"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=launch.folder,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            _wait(f"{base}{launch.ping}", process=process, log=log)
            yield Server(process, base + launch.path, time.perf_counter() - started)
        finally:
            end(process)


def end(process: "subprocess.Popen[bytes]") -> None:
    """SIGTERM, and, for whatever of its processes is left, SIGKILL."""
    known = tree(process.pid)
    process.terminate()
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    deadline = time.monotonic() + _END_SECONDS
    while (left := [pid for pid in known if _is_of_session(pid, process.pid)]) and (
        time.monotonic() < deadline
    ):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_LOOK_SECONDS)


def _is_of_session(pid: int, session: int) -> bool:
    """All of a server's processes are: nobody else's is hit."""
    try:
        return os.getsid(pid) == session
    except ProcessLookupError:
        return False


def tree(pid: int) -> list[int]:
    """A process and all that descend from it, as /proc tells."""
    found = [pid]
    for each in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{each}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def memory_mb(pid: int) -> dict[str, float]:
    """Of a process and its descendants, in MB of 10⁶ bytes.

    rss: resident pages, those that are shared counted in each; pss: counted once in all.
    """
    sums = {"rss": 0.0, "pss": 0.0}
    for each in tree(pid):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{each}/smaps_rollup").read_text().splitlines():
                name, _, value = line.partition(":")
                if name.lower() in sums:
                    sums[name.lower()] += int(value.split()[0]) * 1024 / 1e6
    return sums


def _wait(url: str, *, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
            if answer.status == _OK:
                return
        time.sleep(_LOOK_SECONDS)
    raise NotReadyError(f"{process.args!r} was never ready; its output is in {str(log)!r}")


def _free_port() -> int:
    """Below 32,767: multi-model-server refuses those above."""
    for port in random.sample(range(20_000, 32_000), 100):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise NotReadyError("no port between 20,000 and 32,000 is free")
