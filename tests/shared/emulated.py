"""Requests to the emulator, as small as SageMaker takes them."""

import io
import tarfile
import time
from collections.abc import Callable
from typing import Any

ROLE = "arn:aws:iam::123456789012:role/jobs"
BUCKET = "pictures"
IMAGES = {"image": None}
"""The image of these requests: this Python environment stands for it."""
_PATIENCE_SECONDS = 60


def training_request(name: str, *, script: str = "true", **more: Any) -> dict[str, Any]:
    """A training job that runs a shell script."""
    return {
        "TrainingJobName": name,
        "AlgorithmSpecification": {
            "TrainingImage": "image",
            "TrainingInputMode": "File",
            **shell(script),
        },
        "RoleArn": ROLE,
        "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/out"},
        "ResourceConfig": {
            "InstanceType": "ml.m5.large",
            "InstanceCount": 1,
            "VolumeSizeInGB": 10,
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": 600},
        **more,
    }


def shell(script: str) -> dict[str, list[str]]:
    """A container's command that runs a script, in pieces as long as SageMaker takes them."""
    pieces = [script[start : start + 250] for start in range(0, len(script), 250)]
    joined = 'eval "$(IFS=; printf %s "$*")"'
    return {"ContainerEntrypoint": ["sh", "-c", joined, "sh"], "ContainerArguments": pieces}


def channel(name: str, uri: str, **more: Any) -> dict[str, Any]:
    """A channel of all that lies below a URI."""
    source = {"S3DataType": "S3Prefix", "S3Uri": uri, **more}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}}


def spot(request: dict[str, Any]) -> dict[str, Any]:
    """The same job on a machine that may be taken away."""
    stopping = {"MaxRuntimeInSeconds": 600, "MaxWaitTimeInSeconds": 600}
    return request | {"EnableManagedSpotTraining": True, "StoppingCondition": stopping}


def trained(sagemaker: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Create a training job and wait for its end."""
    sagemaker.create_training_job(**request)
    return ended_training(sagemaker, request["TrainingJobName"])


def ended_training(sagemaker: Any, name: str) -> dict[str, Any]:
    """Wait for the end of a training job."""
    return until(
        lambda: sagemaker.describe_training_job(TrainingJobName=name),
        lambda job: job["TrainingJobStatus"] in ("Completed", "Failed", "Stopped"),
    )


def until(look: Callable[[], Any], satisfied: Callable[[Any], bool]) -> Any:
    """Look again and again until it is as wanted."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not satisfied(found := look()):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


def log_lines(logs: Any, group: str, *, prefix: str) -> list[str]:
    """All lines of the streams that begin so."""
    streams = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=prefix)
    return [
        event["message"]
        for stream in streams["logStreams"]
        for event in logs.get_log_events(
            logGroupName=group, logStreamName=stream["logStreamName"], startFromHead=True
        )["events"]
    ]


def archive_of(s3: Any, uri: str) -> dict[str, bytes]:
    """The files of an archive on S3."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    content = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return {
            member.name: file.read()
            for member in tar.getmembers()
            if member.isfile() and (file := tar.extractfile(member))
        }


def keys(s3: Any, prefix: str) -> list[str]:
    """The keys of our bucket that begin so."""
    answer = s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix)
    return [entry["Key"] for entry in answer.get("Contents", ())]
