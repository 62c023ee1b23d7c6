"""What a container gets and leaves: /opt/ml, its channels and its checkpoints."""

import gzip
import json
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError

from rehearsal.emulator.state import State
from rehearsal.jobs import job_files, storage
from rehearsal.jobs.storage import split_uri
from rehearsal.jobs.training_job import TrainingJob

# --- failures ---
# Why jobs fail, in SageMaker's words.


class JobFailure(Exception):  # noqa: N818  AWS calls it a failure
    """A job ends as Failed; the text is its FailureReason."""


REASON_CHARACTERS = 1024
"""SageMaker shows so many of a failure's reason."""


def algorithm_error(reason: str, *, code: int) -> str:
    """The FailureReason of a program that ended with an exit code other than 0."""
    ending = f", exit code: {code}"
    room = REASON_CHARACTERS - len("AlgorithmError: ") - len(ending)
    return f"AlgorithmError: {reason.strip()[:room]}{ending}"


# --- folders of a container ---
# The folder that a training container knows as /opt/ml.

_FOLDERS = ("input/config", "input/data", "model", "output/data", "checkpoints", "code")
NETWORK_INTERFACE = "lo"
"""On AWS it is eth0; here all hosts are this machine."""


def write_training_folder(ml: Path, *, job: TrainingJob, host: str) -> None:
    """Make /opt/ml of one host, without the channels' content."""
    for name in _FOLDERS:
        (ml / name).mkdir(parents=True, exist_ok=True)
    config = ml / "input" / "config"
    _write(config / "hyperparameters.json", job.request.get("HyperParameters", {}))
    _write(config / "resourceconfig.json", _resources(job, host=host))
    _write(config / "inputdataconfig.json", _inputs(job))
    if hook := job.request.get("DebugHookConfig"):
        _write(config / "debughookconfig.json", hook)


def hosts_file(job: TrainingJob) -> dict[str, str]:
    """Addresses of a job's hosts: all on loopback."""
    return {host: f"127.0.0.{number}" for number, (host, _) in enumerate(job.instances, 1)}


def _resources(job: TrainingJob, *, host: str) -> dict[str, Any]:
    instances = job.instances
    groups = job.resources.get("InstanceGroups") or [
        {"InstanceGroupName": "homogeneousCluster", "InstanceType": instances[0][1]}
    ]
    return {
        "current_host": host,
        "current_instance_type": dict(instances)[host],
        "current_group_name": groups[0]["InstanceGroupName"],
        "hosts": [name for name, _ in instances],
        "instance_groups": [
            {
                "instance_group_name": group["InstanceGroupName"],
                "instance_type": group["InstanceType"],
                "hosts": [n for n, kind in instances if kind == group["InstanceType"]],
            }
            for group in groups
        ],
        "network_interface_name": NETWORK_INTERFACE,
    }


def _inputs(job: TrainingJob) -> dict[str, Any]:
    mode = job.request["AlgorithmSpecification"]["TrainingInputMode"]
    return {
        channel["ChannelName"]: _input(channel, mode=channel.get("InputMode", mode))
        for channel in job.request.get("InputDataConfig", ())
    }


def _input(channel: Mapping[str, Any], *, mode: str) -> dict[str, Any]:
    source = channel["DataSource"]["S3DataSource"]
    found = {
        # A container cannot tell FastFile from File, and is told File on AWS as well.
        "TrainingInputMode": "File" if mode == "FastFile" else mode,
        "S3DistributionType": source.get("S3DataDistributionType", "FullyReplicated"),
        "RecordWrapperType": channel.get("RecordWrapperType", "None"),
    }
    if "ContentType" in channel:
        found["ContentType"] = channel["ContentType"]
    return found


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


# --- channels ---

Assignment = tuple[storage.StoredObject, str]
"""An object, and its path below the channel."""

_FAILED = "ClientError: Data download failed"


def fetch_channel(
    channel: Mapping[str, Any], *, folders: Sequence[Path], role: str, state: State
) -> None:
    """Bring one channel of InputDataConfig to all hosts.

    Args:
        folders: the channel's folder of each host.

    Raises:
        JobFailure: there is nothing at that place, as SageMaker says it.
    """
    source = channel["DataSource"]["S3DataSource"]
    found = _objects(source, role=role, state=state)
    sharded = source.get("S3DataDistributionType") == "ShardedByS3Key"
    for number, folder in enumerate(folders):
        folder.mkdir(parents=True, exist_ok=True)
        share = found[number :: len(folders)] if sharded else found
        try:
            storage.download([(entry, folder / path) for entry, path in share], state=state)
        except ClientError as error:
            key = error.response["Error"].get("Key", "an object")
            raise JobFailure(f"{_FAILED}: {error}: {key!r} of {source['S3Uri']!r}") from error
        except OSError as error:
            raise JobFailure(_no_file(error, uri=source["S3Uri"])) from error
        if channel.get("CompressionType") == "Gzip":
            try:
                _unpack(folder, share)
            except storage.NO_GZIP as error:
                where = f"not all under S3 URL {source['S3Uri']!r} is packed by gzip"
                raise JobFailure(f"{_FAILED}: {where}: {error}") from error


def _objects(source: Mapping[str, Any], *, role: str, state: State) -> list[Assignment]:
    uri = source["S3Uri"]
    try:
        if source["S3DataType"] == "ManifestFile":
            found = storage.of_manifest(uri, state=state)
        else:
            found = _of_prefix(uri, state=state)
    except (ClientError, ValueError) as error:
        raise JobFailure(_nothing_there(uri, role=role, why=f" ({error})", state=state)) from error
    if not found:
        raise JobFailure(_nothing_there(uri, role=role, why="", state=state))
    return found


def _of_prefix(uri: str, *, state: State) -> list[Assignment]:
    _, prefix = split_uri(uri)
    pairs = [
        (entry, storage.place(entry.key, prefix=prefix, folder=Path()))
        for entry in storage.listed(uri, state=state)
    ]
    return [(entry, path.as_posix()) for entry, path in pairs if path is not None]


def _unpack(folder: Path, share: Sequence[Assignment]) -> None:
    """CompressionType Gzip: each file is decompressed, and keeps its name without .gz."""
    for _, path in share:
        packed = folder / path
        target = packed.with_suffix("") if packed.suffix == ".gz" else packed
        scratch = packed.with_name(f"{packed.name}.unpacked")
        with gzip.open(packed) as source, scratch.open("wb") as file:
            shutil.copyfileobj(source, file)
        packed.unlink()
        scratch.replace(target)


def _no_file(error: OSError, *, uri: str) -> str:
    """A key that no file can have: as folder and file at once, or too long."""
    return (
        f'ClientError: Data download failed: the objects under S3 URL "{uri}" cannot be written '
        f"as files: {error.strerror}: {Path(str(error.filename)).name!r}. No key may be the "
        "beginning of another up to a '/', and no part of one longer than 255 bytes."
    )


def _nothing_there(uri: str, *, role: str, why: str, state: State) -> str:
    bucket, _ = split_uri(uri)
    return (
        f'ClientError: Data download failed: No S3 objects found under S3 URL "{uri}" given in '
        "input data source. Please ensure that the bucket exists in the selected region "
        f"({state.settings.region}), that objects exist under that S3 prefix, and that the role "
        f'"{role}" has "s3:ListBucket" permissions on bucket "{bucket}".{why}'
    )


# --- checkpoints ---
# /opt/ml/checkpoints and its place on S3: restored at the start, kept alike while it runs.

_STANDARD_PLACE = "/opt/ml/checkpoints"
_Version = tuple[int, int]
"""Time of change in ns, and size."""


def local_folder(config: Mapping[str, Any]) -> str:
    """Where checkpoints lie below /opt/ml; request_checks has made sure of that."""
    return below_ml(config.get("LocalPath", _STANDARD_PLACE))


def below_ml(place: str) -> str:
    """A path in /opt/ml, relative to it."""
    return PurePosixPath(place).relative_to("/opt/ml").as_posix()


class CheckpointMirror:
    """Copies one host's checkpoints to S3 whenever they change, deletions too.

    Args:
        ml: the host's /opt/ml.
        folder: below it.
        say: told once of each file that cannot be copied.
    """

    def __init__(
        self, ml: Path, folder: str, *, uri: str, say: Callable[[str], None], state: State
    ) -> None:
        self._ml = ml
        self._folder = folder
        self._say = say
        self._failed: dict[str, _Version] = {}
        self._uri = uri.rstrip("/")
        self._state = state
        self._sent: dict[str, _Version] = {}
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def restore(self) -> None:
        """Bring what an earlier job or attempt left on S3."""
        folder = self._ml / self._folder
        folder.mkdir(parents=True, exist_ok=True)
        _, prefix = split_uri(f"{self._uri}/")
        found = storage.listed(f"{self._uri}/", state=self._state)
        places = [(e, storage.place(e.key, prefix=prefix, folder=folder)) for e in found]
        storage.download([(e, p) for e, p in places if p is not None], state=self._state)
        self._sent = self._versions()

    def start(self) -> None:
        """Copy again and again, until `finish`."""
        self._thread = self._state.start(self._run, name=f"checkpoints {self._uri}")

    def finish(self) -> None:
        """Copy a last time."""
        self._stopped.set()
        if self._thread:
            self._thread.join()
        self._copy()

    def _run(self) -> None:
        while not self._stopped.wait(self._state.settings.checkpoint_seconds):
            self._copy()

    def _copy(self) -> None:
        present = self._versions()
        for path, version in present.items():
            settled = version in (self._sent.get(path), self._failed.get(path))
            if not settled and self._send(path, version=version):
                self._sent[path] = version
        for path in set(self._sent) - set(present):
            bucket, key = split_uri(f"{self._uri}/{path}")
            self._state.clients["s3"].delete_object(Bucket=bucket, Key=key)
            del self._sent[path]

    def _send(self, path: str, *, version: _Version) -> bool:
        try:
            with job_files.opened(self._ml, f"{self._folder}/{path}") as file:
                storage.upload(file, uri=f"{self._uri}/{path}", state=self._state)
        except OSError:
            return False  # it was a temporary file, and is gone or has become something else
        except (BotoCoreError, ClientError, Boto3Error, ValueError) as error:
            # Such as a name that S3 does not take: the job's matter, and no end of it.
            self._failed[path] = version
            self._say(f"rehearsal: {path!r} was not copied to {self._uri}: {error}")
            return False
        return True

    def _versions(self) -> dict[str, _Version]:
        return {
            entry.path: (entry.status.st_mtime_ns, entry.status.st_size)
            for entry in job_files.entries(self._ml, self._folder)
            if entry.is_file
        }
