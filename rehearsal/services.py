"""The servers beside the emulator: ZenML's and MLflow's, each a process on the loopback."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from darkroom.errors import DarkroomError
from darkroom.serving.parent_watch import parent_environment
from darkroom.tracking.store import DATABASE_FILE
from rehearsal.emulator.admission import ACCESS_KEY
from stacks.environment import CHECKOUT

LOOPBACK = "127.0.0.1"
_SECONDS_TO_START = 90
_SECONDS_TO_END = 10
_SECONDS_BETWEEN_LOOKS = 0.1
_LINES_SHOWN = 15
_ARTIFACTS = "mlflow-artifacts:/"
"""Through the server."""


@dataclass(frozen=True)
class Service:
    """A server that was started."""

    name: str
    url: str
    health: str
    """Path that answers once the server is ready."""
    log: Path
    process: subprocess.Popen[bytes]

    def wait(self) -> None:
        """Wait until it answers.

        Raises:
            DarkroomError: it ended, or does not answer in time; with its last lines.
        """
        deadline = time.monotonic() + _SECONDS_TO_START
        while not _answers(self.url + self.health):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise DarkroomError(f"{self.name} did not start:\n{self._last_lines()}")
            time.sleep(_SECONDS_BETWEEN_LOOKS)

    def stop(self) -> None:
        """End it; fine if it has ended."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _last_lines(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-_LINES_SHOWN:]) or "(it printed nothing)"


def start_emulator(
    folder: Path,
    *,
    access_key: str,
    region: str,
    own_image: str = "",
    images: Sequence[str] = (),
    services: Sequence[str] = (),
    faults: Sequence[str] = (),
) -> Service:
    """AWS's APIs and what executes their jobs: rehearsal/emulator.

    Args:
        own_image: the image that this Python environment stands for.
        images: others, as URI=FOLDER.
        services: URLs of the servers beside it, which the job that runs a pipeline reaches.
    """
    port = free_port()
    arguments = ["-m", "rehearsal.emulator.server", "--port", str(port), "--folder", str(folder)]
    arguments += ["--region", region]
    if own_image:
        arguments += ["--own-image", own_image]
    for image in images:
        arguments += ["--image", image]
    for url in services:
        arguments += ["--service", url]
    for fault in faults:
        arguments += ["--fault", fault]
    return _start(
        "the emulator",
        [sys.executable, *arguments],
        port=port,
        health="/_rehearsal/health",
        log=folder / "emulator.log",
        # Not an argument: everybody on this machine can list those.
        environment={ACCESS_KEY: access_key},
    )


def start_zenml(folder: Path, *, port: int, user: str, password: str) -> Service:
    """A ZenML server with a database of its own: the orchestrator refuses a local store."""
    store = folder / "zenml-server"
    store.mkdir(parents=True, exist_ok=True)
    environment = {
        "ZENML_CONFIG_PATH": str(store),
        "ZENML_SERVER": "true",
        "ZENML_SERVER_AUTO_ACTIVATE": "true",
        "ZENML_SERVER_DEPLOYMENT_TYPE": "other",
        "ZENML_SERVER_AUTH_SCHEME": "OAUTH2_PASSWORD_BEARER",
        "ZENML_DEFAULT_USER_NAME": user,
        "ZENML_DEFAULT_USER_PASSWORD": password,
        "ZENML_ANALYTICS_OPT_IN": "false",
    }
    arguments = ["-m", "uvicorn", "zenml.zen_server.zen_server_api:app"]
    return _start(
        "ZenML's server",
        [sys.executable, *arguments, "--host", LOOPBACK, "--port", str(port)],
        port=port,
        health="/health",
        log=folder / "zenml-server.log",
        environment=environment,
    )


def start_mlflow(folder: Path, *, port: int) -> Service:
    """An MLflow server that keeps metrics and artifacts in the folder.

    As `mlflow server` would start it, which itself would stay beside it and occupy 230 MB.
    """
    store = folder / "mlflow"
    store.mkdir(parents=True, exist_ok=True)
    database = store / DATABASE_FILE
    _make_database(database)
    arguments = ["-m", "uvicorn", "mlflow.server.fastapi_app:app"]
    return _start(
        "MLflow's server",
        [sys.executable, *arguments, "--host", LOOPBACK, "--port", str(port)],
        port=port,
        health="/health",
        log=folder / "mlflow-server.log",
        environment={
            "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{database}",
            "_MLFLOW_SERVER_ARTIFACT_ROOT": _ARTIFACTS,
            "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(store / "artifacts"),
            "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
            # Its job runner would start a dozen processes that nothing here uses.
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        },
    )


def _make_database(database: Path) -> None:
    """In a process of its own, since MLflow would stay in the memory of this one."""
    if not database.exists():
        subprocess.run(  # noqa: S603 - our own arguments
            [sys.executable, "-m", "darkroom.tracking.store", str(database), _ARTIFACTS],
            check=True,
            env={**bare_environment(database.parent), "MLFLOW_LOGGING_LEVEL": "ERROR"},
            cwd=CHECKOUT,
        )


def free_port() -> int:
    """A port of the loopback on which nobody listens now."""
    with socket.create_server((LOOPBACK, 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def bare_environment(home: Path) -> dict[str, str]:
    """What a server of ours gets to see: nothing of the user's but where programs are."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
    return {**kept, "HOME": str(home), "DO_NOT_TRACK": "true", **parent_environment()}


def _start(
    name: str,
    command: list[str],
    *,
    port: int,
    health: str,
    log: Path,
    environment: Mapping[str, str],
) -> Service:
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own arguments
            [sys.executable, "-m", "rehearsal.attached", *command],
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**bare_environment(log.parent), **environment},
            start_new_session=True,
        )
    return Service(name, url=f"http://{LOOPBACK}:{port}", health=health, log=log, process=process)


def _answers(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
