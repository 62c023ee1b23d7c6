"""One container that serves a model: SageMaker's hosting contract, seen from outside.

It is started with the word `serve`, answers GET /ping with 200 once it can work, and
POST /invocations. It listens on port 8080, as on AWS. Where there are no namespaces many share
one loopback, so that each gets a port of its own by SAGEMAKER_BIND_TO_PORT; one that does not
look there is found on 8080, where it is alone.
"""

import shutil
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3

from rehearsal.emulator.state import State, now
from rehearsal.hosting.models import ModelDataError, fetch_model
from rehearsal.jobs.container import (
    Container,
    Doors,
    RunningContainer,
    image_folder,
    is_sandboxed,
    reachable,
    remove_scratch,
    start,
)
from rehearsal.jobs.logs import LogStream

# --- a shim for port 8080 ---
# Containers that listen on 8080, whatever SAGEMAKER_BIND_TO_PORT says: on AWS they may.
#
# Here all share one loopback, so that one of them at a time can; and before it is believed
# that a container is there, the socket has to be its own.

PORT = 8080
_PROC = Path("/proc")
_LISTENING = "0A"


def is_listening_there(process: int) -> bool:
    """Whether a process, or one that it has started, listens on port 8080.

    Args:
        process: its id; where this machine has no /proc, nothing is known of it.
    """
    if not _is_taken():
        return False
    wanted = {f"socket:[{inode}]" for inode in _inodes()}
    return any(not wanted.isdisjoint(_open_files(each)) for each in _family(process))


def _is_taken() -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", PORT)) == 0


def _inodes() -> Iterator[str]:
    """Of the sockets that listen on the port; the columns are described in proc(5)."""
    for name in ("tcp", "tcp6"):
        for line in _lines(_PROC / "net" / name)[1:]:
            columns = line.split()
            if columns[3] == _LISTENING and int(columns[1].rpartition(":")[2], 16) == PORT:
                yield columns[9]


def _family(process: int) -> Iterator[int]:
    """A process and all below it."""
    children = defaultdict(list)
    for status in _PROC.glob("[0-9]*/stat"):
        # The name, in brackets, may hold blanks and brackets itself.
        fields = "".join(_lines(status)).rpartition(")")[2].split()
        if fields:
            children[int(fields[1])].append(int(status.parent.name))
    waiting = [process]
    while waiting:
        each = waiting.pop()
        yield each
        waiting.extend(children[each])


def _open_files(process: int) -> Iterator[str]:
    try:
        for entry in (_PROC / str(process) / "fd").iterdir():
            yield str(entry.readlink())
    except OSError:
        return  # it has ended, or closed the file meanwhile


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


# --- servers ---

PING_SECONDS = 2
INVOCATION_SECONDS = 60
"""Both of the developer guide, "Custom Inference Code with Hosting Services"."""

_SECONDS_BETWEEN_PINGS = 0.05
_SECONDS_TO_END = 5


class StartupError(Exception):
    """A container did not come up; the message is AWS's FailureReason."""


class NoAnswerError(Exception):
    """The container has ended, or took too long.

    Args:
        container: by the name that AWS gives it.
        timed_out: it still works at it.
    """

    def __init__(self, message: str, *, container: str, timed_out: bool = False) -> None:
        super().__init__(message)
        self.container, self.timed_out = container, timed_out


@dataclass(frozen=True)
class Answer:
    """What a container answered."""

    status: int
    body: bytes
    content_type: str
    headers: Mapping[str, str]


class ModelServer:
    """A serving container; it is started again when a request finds it dead."""

    def __init__(
        self,
        definition: Mapping[str, Any],
        *,
        hostname: str,
        folder: Path,
        log: LogStream,
        isolated: bool,
        state: State,
    ) -> None:
        self.definition = definition
        self._isolated = isolated
        self.hostname = hostname
        self.loaded_models: dict[str, str] = {}
        """Multi-model mode: TargetModel → name within the container."""
        self.lock = threading.Lock()
        self._folder = folder
        self._log = log
        self._state = state
        self._running: RunningContainer | None = None
        self._stopped = False
        self._port = PORT
        self._knows_usual_port_only = False
        self._pool: urllib3.HTTPConnectionPool | None = None

    @property
    def is_multi_model(self) -> bool:
        """Whether it holds many models, chosen by TargetModel."""
        return self.definition.get("Mode") == "MultiModel"

    @property
    def models_folder(self) -> Path:
        """What the container knows as /opt/ml/models, and cannot change in a sandbox."""
        parent = self._folder if is_sandboxed(self._state) else self._folder / "ml"
        return parent / "models"

    @property
    def models_path(self) -> str:
        """`models_folder`, as the container sees it."""
        return "/opt/ml/models" if is_sandboxed(self._state) else str(self.models_folder)

    def image_description(self) -> dict[str, Any]:
        """Its DeployedImage."""
        image = self.definition.get("Image", "")
        return {"SpecifiedImage": image, "ResolvedImage": image, "ResolutionTime": now()}

    def start(self) -> None:
        """Fetch the model and start the process. Raises StartupError."""
        try:
            if self.is_multi_model:
                self.models_folder.mkdir(parents=True, exist_ok=True)
            else:
                fetch_model(
                    self.definition, folder=self._folder / "ml" / "model", state=self._state
                )
        except ModelDataError as error:
            raise StartupError(str(error)) from error
        self._launch()

    def wait_until_healthy(self, *, seconds: float) -> bool:
        """Ping until it answers; False where it ends before, or takes longer."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self._has_ended() and not self._state.ending.is_set():
            if self.is_healthy():
                return True
            self._look_on_usual_port()
            time.sleep(_SECONDS_BETWEEN_PINGS)
        self._log.write(
            f"rehearsal: GET /ping was not answered with 200 on port {self._port}, which "
            "SAGEMAKER_BIND_TO_PORT told"
        )
        return False

    def is_healthy(self) -> bool:
        """Whether /ping is answered with 200 in time."""
        if self._pool is None or self._has_ended():
            return False
        try:
            return self._pool.request("GET", "/ping", timeout=PING_SECONDS).status == 200
        except urllib3.exceptions.HTTPError:
            return False

    def send(
        self,
        method: str,
        *,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str],
        seconds: float = INVOCATION_SECONDS,
    ) -> Answer:
        """One request to the container. Raises NoAnswerError."""
        if self._pool is None or self._has_ended():
            self._restart()
            message = "the container has ended; it is started again"
            raise NoAnswerError(message, container=self.hostname)
        try:
            answer = self._pool.request(
                method, path, body=body, headers=dict(headers), timeout=seconds, redirect=False
            )
        except urllib3.exceptions.HTTPError as error:
            late = isinstance(error, urllib3.exceptions.TimeoutError)
            raise NoAnswerError(
                f"no answer: {error}", container=self.hostname, timed_out=late
            ) from error
        kind = answer.headers.get("Content-Type", "application/octet-stream")
        return Answer(answer.status, answer.data, kind, dict(answer.headers))

    def last_line(self) -> int:
        """When the latest of what it has printed so far came, in ms since the epoch."""
        if self._running is not None:
            self._running.pass_on()
        return self._log.latest

    def stop(self) -> None:
        """SIGTERM, and SIGKILL where that is not enough; its files go."""
        with self.lock:
            self._stopped = True
            running = self._running
        if running is not None:
            running.terminate()
            running.wait(_SECONDS_TO_END)
            running.kill()
            running.wait(_SECONDS_TO_END)
            self._state.processes.remove(running)
        if self._pool is not None:
            self._pool.close()
        self._log.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _look_on_usual_port(self) -> None:
        running = self._running
        if self._port == PORT or running is None or running.doors is not None:
            return
        if is_listening_there(running.process_id):
            self._state.log.not_covered(
                "several containers on port 8080: those that shall run at the same time have to "
                "listen where SAGEMAKER_BIND_TO_PORT says"
            )
            self._knows_usual_port_only = True
            self._reach(PORT, doors=None)

    def _reach(self, port: int, *, doors: Doors | None) -> None:
        self._port = port
        if doors is None:
            self._pool = urllib3.HTTPConnectionPool("127.0.0.1", port, maxsize=32, retries=False)
        else:
            self._pool = _InnerPool("127.0.0.1", port, maxsize=32, retries=False, doors=doors)

    def _has_ended(self) -> bool:
        return self._running is None or self._running.exit_code is not None

    def _restart(self) -> None:
        with self.lock:
            if self._running is None or self._stopped or self._state.ending.is_set():
                return
            if self._has_ended():
                self._running.wait(_SECONDS_TO_END)
                self._running.kill()
                self._state.processes.remove(self._running)
                self._launch()

    def _launch(self) -> None:
        sandboxed = is_sandboxed(self._state)
        usual = sandboxed or self._knows_usual_port_only
        port = PORT if usual else _free_port()
        self.loaded_models.clear()
        environment = self._environment(port)
        container = Container(
            folder=self._folder,
            command=("serve",),
            environment=environment,
            image=image_folder(self.definition.get("Image", ""), state=self._state),
            hostname=self.hostname,
            reaches=reachable(environment, isolated=self._isolated, state=self._state),
        )
        # As a fresh machine would have it: nothing that an earlier start left there.
        remove_scratch(container)
        self._running = start(container, state=self._state, on_line=self._log.write)
        self._reach(port, doors=self._running.doors)

    def _environment(self, port: int) -> dict[str, str]:
        mode = {"SAGEMAKER_MULTI_MODEL": "true"} if self.is_multi_model else {}
        bound = {"SAGEMAKER_BIND_TO_PORT": str(port)}
        return {**mode, **self.definition.get("Environment", {}), **bound}


class _InnerConnection(urllib3.connection.HTTPConnection):
    """A connection to a program in a network of its own."""

    def __init__(self, *values: Any, doors: Doors, **more: Any) -> None:  # noqa: ANN401
        super().__init__(*values, **more)
        self._doors = doors

    def _new_conn(self) -> socket.socket:
        timeout = self.timeout if isinstance(self.timeout, int | float) else None
        try:
            return self._doors.connect(self.port or PORT, timeout=timeout)
        except OSError as error:
            raise urllib3.exceptions.NewConnectionError(self, str(error)) from error


class _InnerPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _InnerConnection


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
    return port
