"""The stand-in for AWS: the emulator, a ZenML server and an MLflow server, up together.

    with stand_in(folder) as aws:
        os.environ |= aws.environment()

`python -m rehearsal` keeps one up, which runs then use instead of starting their own. All
that a stand-in writes lies in its folder, apart from MLflow's records: these are shared
between rehearsals, so that their runs can be compared.
"""

import errno
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

from darkroom.base.errors import DarkroomError, UserError
from darkroom.base.files import atomic_path, workspace, write_text
from darkroom.base.processes import parent_environment
from darkroom.tracking.store import DATABASE_FILE
from rehearsal.emulator.calls import ACCESS_KEY
from rehearsal.emulator.clients import isolated_session
from rehearsal.emulator.faults import parse_fault
from stacks.environment import CHECKOUT

# --- services ---
# The servers beside the emulator: ZenML's and MLflow's, each a process on the loopback.

LOOPBACK = "127.0.0.1"
_SECONDS_TO_START = 90
_SECONDS_TO_END = 10
_SECONDS_BETWEEN_POLLS = 0.1
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
            time.sleep(_SECONDS_BETWEEN_POLLS)

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


# --- watch ---
# Notices that a server of the stand-in is gone, and ends what would wait for it for ever.
#
# SDKs repeat calls that nobody answers, for minutes; a killed emulator will never answer.

_SECONDS_BETWEEN_LOOKS = 1.0
_LOOKS = 2
"""In which a connection is refused, one after the other, before a server counts as gone."""
_SECONDS_TO_UNWIND = 4.0
"""For the main thread to end by itself; then the process is ended."""
_SIGNAL = signal.SIGUSR2


class _Gone(BaseException):
    """Raised in the main thread, wherever it waits; no `except Exception` takes it."""


@contextmanager
def watched(servers: Mapping[str, str]) -> Iterator[None]:
    """End the block when one of the servers is gone, whatever the block waits for.

    Where the block cannot be ended within seconds, the process is, with the same message and
    exit code. Only in the main thread; elsewhere nothing is watched.

    Args:
        servers: URLs on the loopback, by what people call them.

    Raises:
        DarkroomError: a server is gone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    watch = _Watch(servers)
    before = signal.signal(_SIGNAL, _interrupt)
    watch.start()
    try:
        yield
    except BaseException as error:
        # What went wrong meanwhile may be its consequence, noticed before the watch has.
        watch.look()
        if watch.gone and not isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
            raise DarkroomError(watch.gone) from None
        raise
    finally:
        watch.ended.set()
        signal.signal(_SIGNAL, before)


class _Watch(threading.Thread):
    def __init__(self, servers: Mapping[str, str]) -> None:
        super().__init__(daemon=True, name="watch of the stand-in")
        self.ended = threading.Event()
        self.gone = ""
        """Which server is gone, as a message; empty: none."""
        self._servers = servers

    def run(self) -> None:
        refused = 0
        while refused < _LOOKS:
            if self.ended.wait(_SECONDS_BETWEEN_LOOKS):
                return
            self.gone = ""
            self.look()
            refused = refused + 1 if self.gone else 0
        main = threading.main_thread().ident
        if main is not None and not self.ended.is_set():
            signal.pthread_kill(main, _SIGNAL)
        # The block's own end may hang as well, in calls that nobody answers: so this goes on.
        threading.Event().wait(_SECONDS_TO_UNWIND)
        sys.stderr.write(f"Error: {self.gone}\n")
        sys.stderr.flush()
        os._exit(DarkroomError.exit_code)

    def look(self) -> None:
        """Note a server that refuses connections; one that is merely slow does not."""
        for name, url in self._servers.items():
            port = urlsplit(url).port or 0
            with socket.socket() as probe:
                probe.settimeout(1)
                if probe.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED:
                    self.gone = (
                        f"{name} of the rehearsal has ended, it no longer answers on {url}: what "
                        "ran there is lost. Its log lies in the rehearsal's folder; start again"
                    )


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise _Gone


# --- session ---

REGION = "us-east-1"
ACCOUNT = "123456789012"
_BUCKET = "darkroom-rehearsal"
_ROLE = "darkroom-execution"
_ENDPOINT_ROLE = "darkroom-endpoint"
_REPOSITORY = "darkroom"
_IMAGE = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/{_REPOSITORY}:rehearsal"
"""The one image whose programs are this environment's."""
_USER = "rehearsal"
_BULK = ("zenml-server", "zenml-client", "objects")
_TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "sagemaker.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    ],
}
_SDK_SETTINGS = "SchemaVersion: '1.0'\nSageMaker: {PythonSDK: {Modules: {TelemetryOptOut: true}}}\n"


@dataclass(frozen=True)
class StandIn:
    """Where a stand-in that runs is reached; it goes by no other addresses."""

    pid: int
    """Of the process that keeps it up."""
    folder: str
    aws: str
    zenml: str
    mlflow: str
    password: str
    """Of the ZenML server, and key of the emulator: made for this stand-in alone."""

    def environment(self) -> dict[str, str]:
        """What a program needs in its environment to take the stand-in for AWS."""
        nowhere = str(Path(self.folder, "nowhere"))
        settings = str(Path(self.folder, "sagemaker-sdk.yaml"))
        return {
            "AWS_ENDPOINT_URL": self.aws,
            "AWS_ACCESS_KEY_ID": _access_key(self.password),
            "AWS_SECRET_ACCESS_KEY": self.password,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_CONFIG_FILE": nowhere,
            "AWS_SHARED_CREDENTIALS_FILE": nowhere,
            "AWS_EC2_METADATA_DISABLED": "true",
            "SAGEMAKER_ADMIN_CONFIG_OVERRIDE": settings,
            "SAGEMAKER_USER_CONFIG_OVERRIDE": settings,
            "SAGEMAKER_SUPPRESS_V2_WARNING": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
            "DARKROOM_ROLE_ARN": f"arn:aws:iam::{ACCOUNT}:role/{_ROLE}",
            "DARKROOM_ENDPOINT_ROLE_ARN": f"arn:aws:iam::{ACCOUNT}:role/{_ENDPOINT_ROLE}",
            "DARKROOM_S3_ROOT": f"s3://{_BUCKET}/darkroom",
            "DARKROOM_ECR_REGISTRY": f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com",
            "DARKROOM_IMAGE": _IMAGE,
            "DARKROOM_MLFLOW_URI": self.mlflow,
            "DARKROOM_MLFLOW_TOKEN": self.password,
            "ZENML_STORE_TYPE": "rest",
            "ZENML_STORE_URL": self.zenml,
            "ZENML_STORE_USERNAME": _USER,
            "ZENML_STORE_PASSWORD": self.password,
            "ZENML_CONFIG_PATH": str(Path(self.folder, "zenml-client")),
        }

    def watched(self) -> AbstractContextManager[None]:
        """End the block with a DarkroomError when a server of the stand-in is gone."""
        servers = {
            "the emulator": self.aws,
            "ZenML's server": self.zenml,
            "MLflow's server": self.mlflow,
        }
        return watched(servers)

    def enter(self) -> None:
        """Make this process take the stand-in for AWS, and forget the user's own account."""
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            del os.environ[name]
        for name in ("ZENML_STORE_API_KEY", "ZENML_STORE_API_TOKEN", "ZENML_ACTIVE_STACK_ID"):
            os.environ.pop(name, None)
        os.environ |= self.environment()


@contextmanager
def stand_in(
    folder: Path, *, images: Sequence[str] = (), faults: Sequence[str] = ()
) -> Iterator[StandIn]:
    """Start what is needed, and stop it all when the block ends, however it ends.

    Args:
        folder: of this stand-in; records and logs stay there.
        images: of the user's own, as `python -m rehearsal --image` takes them.
        faults: what is to go wrong, as `python -m rehearsal --fault` takes it.

    Raises:
        UserError: an unknown fault.
        DarkroomError: a server did not start, or has ended while the block ran.
    """
    check_faults(faults)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "sagemaker-sdk.yaml", _SDK_SETTINGS)
    password = secrets.token_hex(16)
    ports = {name: free_port() for name in ("zenml", "mlflow")}
    with ExitStack() as stack:

        def started(service: Service) -> Service:
            stack.callback(service.stop)
            return service

        # All at once: each takes seconds to import what it needs.
        emulator = started(
            start_emulator(
                folder,
                access_key=_access_key(password),
                region=REGION,
                own_image=_IMAGE,
                images=images,
                services=[f"http://{LOOPBACK}:{port}" for port in ports.values()],
                faults=faults,
            )
        )
        zenml = started(start_zenml(folder, port=ports["zenml"], user=_USER, password=password))
        mlflow = started(start_mlflow(mlflow_folder(), port=ports["mlflow"]))
        for service in (emulator, zenml, mlflow):
            service.wait()
        running = StandIn(
            pid=os.getpid(),
            folder=str(folder),
            aws=emulator.url,
            zenml=zenml.url,
            mlflow=mlflow.url,
            password=password,
        )
        with running.watched():
            _prepare_account(running)
            yield running


@contextmanager
def kept_up(*, images: Sequence[str] = (), faults: Sequence[str] = ()) -> Iterator[StandIn]:
    """A stand-in that runs find until the block ends."""
    folder = new_folder("kept")
    with stand_in(folder, images=images, faults=faults) as running:
        with atomic_path(_kept_file()) as temporary:
            temporary.touch(mode=0o600)  # it holds the password
            temporary.write_text(json.dumps(asdict(running)), encoding="utf-8")
        try:
            yield running
        finally:
            _kept_file().unlink(missing_ok=True)


def find_kept() -> StandIn | None:
    """The stand-in that `python -m rehearsal` keeps up, if there is one."""
    try:
        found = StandIn(**json.loads(_kept_file().read_text(encoding="utf-8")))
        os.kill(found.pid, 0)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None  # it was killed; somebody else's process may have its id now
    return found


def new_folder(name: str) -> Path:
    """Where a stand-in's records and logs go; the process id keeps two apart."""
    return workspace() / "rehearsals" / f"{name}-{os.getpid()}"


def mlflow_folder() -> Path:
    """MLflow's records of all rehearsals."""
    return workspace() / "rehearsals"


def remove_bulk(folder: Path) -> None:
    """Drop what only the running stand-in needed; records, logs and the report stay."""
    containers = [path for path in folder.glob("*/*/*") if path.is_dir()]
    for path in (*(folder / name for name in _BULK), *containers):
        shutil.rmtree(path, ignore_errors=True)


def _kept_file() -> Path:
    return workspace() / "rehearsals" / "kept.json"


def _access_key(password: str) -> str:
    """In the form of AWS's: the emulator knows its callers by it."""
    return f"AKIA{password[:16].upper()}"


def check_faults(faults: Sequence[str]) -> None:
    """All that is wrong with them at once, before anything is started.

    Raises:
        UserError: an unknown fault.
    """
    problems = []
    for fault in faults:
        try:
            parse_fault(fault)
        except ValueError as error:
            problems.append(f"--fault {error}; docs/rehearsal.md lists them")
    if problems:
        raise UserError(problems)


def _prepare_account(running: StandIn) -> None:
    """What the user of a real account has made by the template: bucket, roles, repository."""
    # Not through the environment, in which the user's own account may be set.
    session = isolated_session(_access_key(running.password))

    def client(name: str) -> Any:  # noqa: ANN401 - boto3 has a type for each name
        return session.client(name, endpoint_url=running.aws, region_name=REGION)

    client("s3").create_bucket(Bucket=_BUCKET)
    for role in (_ROLE, _ENDPOINT_ROLE):
        client("iam").create_role(RoleName=role, AssumeRolePolicyDocument=json.dumps(_TRUST))
    client("ecr").create_repository(repositoryName=_REPOSITORY)
