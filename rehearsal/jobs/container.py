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

import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rehearsal.emulator.clients import JOB_KEY
from rehearsal.emulator.errors import not_executed
from rehearsal.emulator.state import State
from rehearsal.jobs import sandbox

_LINE_BYTES = 200_000
"""Longer lines are cut; CloudWatch takes 256 kB."""
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
    isolated: bool = False
    """Without network, where there are namespaces."""

    @property
    def ml(self) -> Path:
        """What the container knows as /opt/ml."""
        return self.folder / "ml"


class RunningContainer:
    """A container's processes; the lines that it prints are passed on as they come."""

    def __init__(self, process: "subprocess.Popen[bytes]", *, on_line: OnLine) -> None:
        self._process = process
        self._on_line = on_line
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def terminate(self) -> None:
        """Send SIGTERM to the program."""
        self._order(b"TERM\n")

    def kill(self) -> None:
        """End all its processes, at once."""
        with self._lock:
            if self._process.stdin and not self._process.stdin.closed:
                _close_quietly(self._process.stdin)

    def wait(self, timeout: float | None = None) -> int | None:
        """The exit code, once all output is read; None where it still runs after so long."""
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        self._reader.join(timeout=5)
        self.kill()
        return code

    @property
    def process_id(self) -> int:
        """Of the first of its processes."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

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
            while line := output.readline(_LINE_BYTES):
                self._on_line(line.decode(errors="replace").rstrip("\n"))


def start(container: Container, *, state: State, on_line: OnLine) -> RunningContainer:
    """Start a container; it is killed when the emulator ends.

    The environment is made from nothing: PATH, HOME, the role's credentials, the region,
    the emulator's address, and what the container asks for.
    """
    sandboxed = is_sandboxed(state)
    environment = {**standard_environment(container, state=state), **container.environment}
    running = _launch(container, environment=environment, sandboxed=sandboxed, on_line=on_line)
    state.processes.add(running)
    return running


def run_to_end(container: Container, *, sandboxed: bool) -> int:
    """Run a container that nobody watches; its exit code."""
    running = _launch(
        container, environment=container.environment, sandboxed=sandboxed, on_line=lambda _: None
    )
    code = running.wait(timeout=20)
    running.kill()
    return 1 if code is None else code


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
    for part in ("root", "etc", "tmp", "home"):
        shutil.rmtree(container.folder / part, ignore_errors=True)


def remove_copies(container: Container, *, keep: Sequence[str]) -> None:
    """Delete what lies on S3 as well, or is worthless: all of /opt/ml but these folders."""
    kept = [container.ml / name for name in keep]
    for path in sorted(container.ml.rglob("*"), reverse=True):
        if any(path.is_relative_to(k) or k.is_relative_to(path) for k in kept):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _own_folders(container: Container) -> dict[str, str]:
    """Without namespaces: where the container's folders really are."""
    folder = container.folder
    return {
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
        "SAGEMAKER_BASE_DIR": str(container.ml),
    }


def _launch(
    container: Container, *, environment: Mapping[str, str], sandboxed: bool, on_line: OnLine
) -> RunningContainer:
    sandbox.prepare(container.folder, hostname=container.hostname, hosts=container.hosts)
    isolated = sandboxed and container.isolated
    process = subprocess.Popen(  # noqa: S603  only our own programs
        sandbox.initial_command(sandboxed=sandboxed, isolated=isolated),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={"PATH": _PATH},
        start_new_session=True,
    )
    running = RunningContainer(process, on_line=on_line)
    _send(process, _specification(container, environment=environment, sandboxed=sandboxed))
    return running


def _specification(
    container: Container, *, environment: Mapping[str, str], sandboxed: bool
) -> dict[str, Any]:
    place = {"image": container.image, "hostname": container.hostname, "hosts": container.hosts}
    described = sandbox.describe(container.folder, isolated=container.isolated, **place)
    return {
        "sandbox": described if sandboxed else None,
        "folder": "/app" if sandboxed else str(container.folder / "app"),
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
