"""A container: a program in a sandbox, with the files and variables SageMaker would give it.

    container = Container(folder=…, command=("train", "train"), environment={…})
    running = start(container, state=state, on_line=print)
    running.terminate(); running.kill(); running.wait() -> exit code

The container's folder, all below the emulator's:

    ml/     /opt/ml            app/    /app, the working folder
    home/   $HOME              tmp/    /tmp

Where namespaces are not allowed, the program is an ordinary process: it finds its files by
$SAGEMAKER_BASE_DIR instead of /opt/ml, and could see what the user can see.
"""

import contextlib
import fcntl
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from rehearsal.emulator.clients import JOB_KEY
from rehearsal.emulator.errors import not_executed
from rehearsal.emulator.state import State
from rehearsal.jobs import sandbox
from rehearsal.jobs.job_files import remove_but

# --- doors ---
# The doors in a container's walls: the only ways in and out of its own network.
#
# A container's network namespace has nothing but a loopback of its own. Sockets that listen there
# are made by its first process (init_process.py) and handed to us, so that what a job sends to the
# emulator's address arrives here; and for each connection that we want to a program inside, one is
# made there and handed over. Nothing else leads out: neither to this machine's loopback nor to any
# other address.

Answer = Callable[[socket.socket], None]
"""Takes a connection that a job has made, and answers it."""

_SECONDS_TO_SET_UP = 20
_SECONDS_TO_CONNECT = 5
_MESSAGE_BYTES = 4096
_PIECE_BYTES = 1 << 18


class Doors:
    """The emulator's side of one container's control socket.

    Args:
        control: SOCK_SEQPACKET.
        answers: who answers at each of the sockets that the container listens with.
    """

    def __init__(self, control: socket.socket, *, answers: Sequence[Answer]) -> None:
        self._control = control
        self._answers = answers
        self._listening: list[socket.socket] = []
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self.walls: dict[str, bool] = {}
        """What the container's first process could build, once `wait` has returned True."""
        threading.Thread(target=self._set_up, daemon=True, name="doors").start()

    def wait(self, seconds: float = _SECONDS_TO_SET_UP) -> bool:
        """Wait for the container to be set up; False where it could not be."""
        return self._ready.wait(seconds) and bool(self.walls)

    def connect(self, port: int, *, timeout: float | None) -> socket.socket:
        """A connection to a port of the container's loopback.

        Raises:
            OSError: nobody listens there, or the container has ended.
        """
        if not self.wait():
            raise ConnectionRefusedError("the container has not come up")
        with self._lock:
            self._control.settimeout(_SECONDS_TO_CONNECT)
            self._control.send(f"connect {port}".encode())
            _, found, _, _ = socket.recv_fds(self._control, _MESSAGE_BYTES, 1)
        if not found:
            raise ConnectionRefusedError(f"nobody listens on port {port} of the container")
        connection = socket.socket(fileno=found[0])
        connection.settimeout(timeout)
        return connection

    def close(self) -> None:
        """Take no more connections; those that are open end with their processes."""
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        self._control.close()
        for listening in self._listening:
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            listening.close()

    def _set_up(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._control.settimeout(_SECONDS_TO_SET_UP)
            message, found, _, _ = socket.recv_fds(
                self._control, _MESSAGE_BYTES, len(self._answers)
            )
            self._listening = [socket.socket(fileno=number) for number in found]
            for listening, answer in zip(self._listening, self._answers, strict=True):
                listening.settimeout(None)
                threading.Thread(
                    target=_accept, args=(listening, answer), daemon=True, name="door"
                ).start()
            self.walls = dict(json.loads(message))
        self._ready.set()


def relay_to(port: int) -> Answer:
    """Pass connections on to a port of this machine's loopback."""

    def answer(inner: socket.socket) -> None:
        try:
            outer = socket.create_connection(("127.0.0.1", port), timeout=_SECONDS_TO_CONNECT)
        except OSError:
            inner.close()
            return
        outer.settimeout(None)
        back = threading.Thread(target=_pump, args=(outer, inner), daemon=True)
        back.start()
        _pump(inner, outer)
        back.join()
        inner.close()
        outer.close()

    return lambda inner: threading.Thread(target=answer, args=(inner,), daemon=True).start()


def _accept(listening: socket.socket, answer: Answer) -> None:
    with contextlib.suppress(OSError):  # it was closed
        while True:
            connection, _ = listening.accept()
            answer(connection)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(_PIECE_BYTES):
            target.sendall(piece)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


# --- container ---

_LINE_BYTES = 200_000
"""Longer lines are cut; CloudWatch takes 256 kB."""
_SECONDS_TO_PASS_ON = 1.0
_SECONDS_BETWEEN_LOOKS = 0.001
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

OnLine = Callable[[str], None]


@dataclass(frozen=True)
class Container:
    """What is to run, and where."""

    folder: Path
    command: tuple[str, ...]
    """Looked up on the image's PATH."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """As requested; `start` adds what SageMaker sets for all."""
    image: Path | None = None
    """A folder with bin/; None: this Python environment."""
    hostname: str = "algo-1"
    hosts: Mapping[str, str] = field(default_factory=dict)
    """Addresses of the other hosts."""
    reaches: tuple[int, ...] = ()
    """Ports of loopback that it reaches, where there are namespaces; see `reachable`."""

    @property
    def ml(self) -> Path:
        """What the container knows as /opt/ml."""
        return self.folder / "ml"


class RunningContainer:
    """A container's processes; the lines that it prints are passed on as they come.

    Args:
        doors: the ways into its network and out; None: it shares the machine's.
    """

    def __init__(
        self, process: "subprocess.Popen[bytes]", *, doors: Doors | None, on_line: OnLine
    ) -> None:
        self._process = process
        self.doors = doors
        self._on_line = on_line
        self._lock = threading.Lock()
        self._passing_on = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def begin(self) -> None:
        """Let the program begin, in a container that was started so that it is held."""
        self._order(b"START\n")

    def terminate(self) -> None:
        """Send SIGTERM to the program."""
        self._order(b"TERM\n")

    def kill(self) -> None:
        """End all its processes, at once, and close its doors."""
        self._end()
        if self.doors is not None:
            self.doors.close()

    def wait(self, timeout: float | None = None) -> int | None:
        """The exit code, once all output is read; None where it still runs after so long."""
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        self._reader.join(timeout=5)
        self._end()
        return code

    def pass_on(self) -> None:
        """Wait until what it has printed so far is passed on; for a second, if it never pauses."""
        until = time.monotonic() + _SECONDS_TO_PASS_ON
        while time.monotonic() < until:
            with self._passing_on:
                if not _is_readable(self._process.stdout):
                    return
            time.sleep(_SECONDS_BETWEEN_LOOKS)

    @property
    def process_id(self) -> int:
        """Of the first of its processes."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def _end(self) -> None:
        with self._lock:
            if self._process.stdin and not self._process.stdin.closed:
                _close_quietly(self._process.stdin)

    def _order(self, order: bytes) -> None:
        with self._lock:
            if self._process.stdin and not self._process.stdin.closed:
                try:
                    self._process.stdin.write(order)
                    self._process.stdin.flush()
                except OSError:
                    return

    def _read(self) -> None:
        output = self._process.stdout
        if output is None:
            return
        with output:
            readable = select.poll()
            readable.register(output, select.POLLIN)
            begun = b""
            while not output.closed:
                readable.poll()
                with self._passing_on:
                    content = os.read(output.fileno(), _LINE_BYTES)
                    *lines, begun = (begun + content).split(b"\n")
                    if begun and (not content or len(begun) >= _LINE_BYTES):
                        lines, begun = [*lines, begun], b""
                    for line in lines:
                        self._pass_on(line)
                    if not content:
                        output.close()

    def _pass_on(self, line: bytes) -> None:
        for start in range(0, max(1, len(line)), _LINE_BYTES):
            self._on_line(line[start : start + _LINE_BYTES].decode(errors="replace"))


def _is_readable(output: IO[bytes] | None) -> bool:
    if output is None or output.closed:
        return False
    waiting = fcntl.ioctl(output.fileno(), termios.FIONREAD, bytes(4))  # 0 at its end, too
    return int.from_bytes(waiting, sys.byteorder) > 0


def start(
    container: Container,
    *,
    state: State,
    on_line: OnLine,
    held: bool = False,
    beside: RunningContainer | None = None,
) -> RunningContainer:
    """Start a container; it is killed when the emulator ends.

    The environment is made from nothing: PATH, HOME, the role's credentials, the region,
    the emulator's address, and what the container asks for.

    Args:
        held: its program begins when `begin_together` says so.
        beside: another host of the same job, held too, whose network it shares.
    """
    environment = {**standard_environment(container, state=state), **container.environment}
    specification = _specification(container, environment=environment)
    if not is_sandboxed(state):
        specification |= {"sandbox": None, "folder": str(container.folder / "app")}
        running = _launch(container, specification=specification, answers=None, on_line=on_line)
    else:
        if beside is not None and beside.doors is not None:
            beside.doors.wait()  # until there is a network to share
            specification["sandbox"]["reaches"] = []
        answers = [_answer(port, state=state) for port in specification["sandbox"]["reaches"]]
        running = _launch(
            container,
            specification=specification,
            answers=answers,
            on_line=on_line,
            join=beside.process_id if beside is not None else 0,
        )
    state.processes.add(running)
    if not held:
        running.begin()
    return running


def begin_together(hosts: Sequence[RunningContainer]) -> None:
    """Let the programs of all hosts of a job begin, once each host is set up.

    One whose program ended sooner would take the network with it that the others are to share.
    """
    for host in hosts:
        if host.doors is not None:
            host.doors.wait()
    for host in hosts:
        host.begin()


def run_to_end(container: Container) -> tuple[int, dict[str, bool]]:
    """Run a container in a sandbox, with nobody watching; its exit code, and its walls."""
    specification = _specification(container, environment=container.environment)
    running = _launch(container, specification=specification, answers=[], on_line=lambda _: None)
    running.begin()
    code = running.wait(timeout=20)
    walls = running.doors.walls if running.doors and running.doors.wait(1) else {}
    running.kill()
    return 1 if code is None else code, walls


def reachable(environment: Mapping[str, str], *, isolated: bool, state: State) -> tuple[int, ...]:
    """The ports of loopback that lead out of a container's network.

    The emulator's; and those of the services beside it (ZenML's and MLflow's servers) where the
    request names one of them, as the job does that runs a pipeline. None where it is isolated.
    """
    if isolated:
        return ()
    values = environment.values()
    named = any(url in value for url in state.settings.services for value in values)
    addresses = [state.url, *(state.settings.services if named else ())]
    return tuple(int(url.rpartition(":")[2]) for url in addresses)


def _answer(port: int, *, state: State) -> Answer:
    """Who answers to a container that connects to a port."""
    return state.answer if state.url.endswith(f":{port}") else relay_to(port)


def cluster(hosts: int, *, state: State) -> AbstractContextManager[None]:
    """Hold what the hosts of one job find each other by, while they run.

    In sandboxes each job has a network of its own; else all hosts of all jobs share one.
    """
    return state.cluster_slot(1 if is_sandboxed(state) else hosts)


def is_sandboxed(state: State) -> bool:
    """Whether containers run in namespaces here."""
    wanted = state.settings.sandboxed
    return sandbox.is_possible() if wanted is None else wanted


def image_folder(uri: str, *, state: State) -> Path | None:
    """The folder that stands for an image; None: this Python environment.

    Raises:
        AwsError: NotExecutedInRehearsal: nothing stands for this image.
    """
    if why := unknown_image(uri, state=state):
        raise not_executed(f"The image {uri!r}", why=why)
    return state.settings.images[uri]


def unknown_image(uri: str, *, state: State) -> str:
    """Why containers of an image cannot be started here, and how they could; empty: they can."""
    known = state.settings.images
    if uri in known:
        return ""
    names = ", ".join(repr(name) for name in known) or "none"
    return (
        f"nothing here stands for the image {uri!r} (known: {names}). Start the stand-in with "
        f"`python -m rehearsal --image {uri}=FOLDER`, where FOLDER/bin/train and FOLDER/bin/serve "
        "are the programs that its container would start; a script of your own "
        "(`sagemaker_program`, SAGEMAKER_PROGRAM) needs an image that runs it"
    )


def standard_environment(container: Container, *, state: State) -> dict[str, str]:
    """What every container gets."""
    sandboxed = is_sandboxed(state)
    folders = [*([container.image] if container.image else []), sandbox.environments(None)[0]]
    own = {"HOME": "/root"} if sandboxed else _own_folders(container)
    if container.image is None and (path := sandbox.module_path()):
        own["PYTHONPATH"] = path
    return {
        "PATH": ":".join([*(str(f / "bin") for f in folders), _PATH]),
        "LANG": "C.UTF-8",
        "HOSTNAME": container.hostname,
        "PYTHONNOUSERSITE": "1",
        "AWS_REGION": state.settings.region,
        "AWS_DEFAULT_REGION": state.settings.region,
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{state.url}/_rehearsal/credentials",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": f"Bearer {JOB_KEY}",
        "AWS_ENDPOINT_URL": state.url,
        "AWS_CONFIG_FILE": "/nonexistent/config",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent/credentials",
        "AWS_EC2_METADATA_DISABLED": "true",
        **own,
    }


def remove_scratch(container: Container) -> None:
    """Delete what no one looks at after the end; /opt/ml stays."""
    for part in ("root", "etc", "tmp", "home", "app"):
        shutil.rmtree(container.folder / part, ignore_errors=True)


def remove_copies(container: Container, *, keep: Sequence[str]) -> None:
    """Delete what lies on S3 as well, or is worthless: all of /opt/ml but these folders."""
    if container.ml.is_dir():
        remove_but(container.ml, keep=tuple(keep))


def _own_folders(container: Container) -> dict[str, str]:
    """Without namespaces: where the container's folders really are."""
    folder = container.folder
    return {
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
        "SAGEMAKER_BASE_DIR": str(container.ml),
    }


def _launch(
    container: Container,
    *,
    specification: Mapping[str, Any],
    answers: Sequence[Answer] | None,
    on_line: OnLine,
    join: int = 0,
) -> RunningContainer:
    """Start the first process.

    Args:
        answers: who answers at the doors of a sandbox; None: there is none.
    """
    sandbox.prepare(container.folder, hostname=container.hostname, hosts=container.hosts)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = sandbox.initial_command(
            sandboxed=answers is not None, control=theirs.fileno(), join=join
        )
        process = subprocess.Popen(  # noqa: S603  only our own programs
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={"PATH": _PATH},
            start_new_session=True,
            pass_fds=() if answers is None else (theirs.fileno(),),
        )
    if answers is None:
        ours.close()
    doors = None if answers is None else Doors(ours, answers=answers)
    running = RunningContainer(process, doors=doors, on_line=on_line)
    _send(process, specification)
    return running


def _specification(container: Container, *, environment: Mapping[str, str]) -> dict[str, Any]:
    """What init_process.py is told, for a container in a sandbox."""
    return {
        "sandbox": sandbox.describe(
            container.folder,
            image=container.image,
            hostname=container.hostname,
            hosts=container.hosts,
            reaches=container.reaches,
        ),
        "folder": "/app",
        "command": list(container.command),
        "environment": dict(environment),
    }


def _send(process: "subprocess.Popen[bytes]", specification: Mapping[str, Any]) -> None:
    if process.stdin is not None:
        try:
            process.stdin.write(json.dumps(specification).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            return  # it could not start; its exit code says so


def _close_quietly(stream: Any) -> None:  # noqa: ANN401
    try:
        stream.close()
    except OSError:
        return
