"""The stand-in for AWS: the emulator, a ZenML server and an MLflow server, up together.

    with stand_in(folder) as aws:
        os.environ |= aws.environment()

`python -m rehearsal` keeps one up, which runs then use instead of starting their own. All
that a stand-in writes lies in its folder, apart from MLflow's records: these are shared
between rehearsals, so that their runs can be compared.
"""

import json
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from darkroom.errors import UserError
from darkroom.files import atomic_path, workspace, write_text
from rehearsal.emulator.clients import isolated_session
from rehearsal.emulator.faults import parse_fault
from rehearsal.services import (
    LOOPBACK,
    Service,
    free_port,
    start_emulator,
    start_mlflow,
    start_zenml,
)
from rehearsal.watch import watched

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
