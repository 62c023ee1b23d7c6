"""The jobs of ours that run now, and how to stop them."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from botocore.exceptions import ClientError

from darkroom.backends.aws_access import error_code
from darkroom.backends.sagemaker.aws_errors import aws_errors_explained, is_missing
from darkroom.backends.sagemaker.clients import Clients
from darkroom.backends.sagemaker.site import Site

_RUN_TAG = "darkroom:run"


@dataclass(frozen=True)
class RunningJob:
    """A job that costs money now."""

    kind: str
    """'training' or 'tuning', as `stop_job` takes it."""
    name: str
    started: datetime
    """When it was created."""


def running_jobs(site: Site, *, clients: Clients) -> list[RunningJob]:
    """Training and tuning jobs of ours that run, newest first.

    Args:
        site: where its `run` is set, only those that this run created.

    Raises:
        UserError, DarkroomError: AWS refuses, or cannot be reached.
    """
    with aws_errors_explained("the list of running jobs"):
        return [
            job
            for job, arn in (*_trainings(clients), *_tunings(clients))
            if not site.run or _run_of(arn, clients=clients) == site.run
        ]


def stop_job(kind: str, name: str, *, clients: Clients) -> None:
    """Ask a job to stop; it keeps its checkpoints. One that has ended is left alone.

    Args:
        kind: 'training' or 'tuning'.

    Raises:
        UserError, DarkroomError: AWS refuses, or cannot be reached.
    """
    with aws_errors_explained(f"{kind} job {name!r}"):
        try:
            if kind == "tuning":
                clients.sagemaker.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
            else:
                clients.sagemaker.stop_training_job(TrainingJobName=name)
        except ClientError as error:
            if not (is_missing(error) or _has_ended(error)):
                raise


def _has_ended(error: ClientError) -> bool:
    message = str(error.response.get("Error", {}).get("Message", ""))
    return error_code(error) == "ValidationException" and "status" in message.lower()


def _trainings(clients: Clients) -> Iterator[tuple[RunningJob, str]]:
    pages = clients.sagemaker.get_paginator("list_training_jobs").paginate(
        NameContains="darkroom-training-",
        StatusEquals="InProgress",
        SortBy="CreationTime",
        SortOrder="Descending",
    )
    for page in pages:
        for job in page["TrainingJobSummaries"]:
            found = RunningJob("training", job["TrainingJobName"], job["CreationTime"])
            yield found, job["TrainingJobArn"]


def _tunings(clients: Clients) -> Iterator[tuple[RunningJob, str]]:
    pages = clients.sagemaker.get_paginator("list_hyper_parameter_tuning_jobs").paginate(
        NameContains="darkroom-tuning-",
        StatusEquals="InProgress",
        SortBy="CreationTime",
        SortOrder="Descending",
    )
    for page in pages:
        for job in page["HyperParameterTuningJobSummaries"]:
            found = RunningJob("tuning", job["HyperParameterTuningJobName"], job["CreationTime"])
            yield found, job["HyperParameterTuningJobArn"]


def _run_of(arn: str, *, clients: Clients) -> str:
    for page in clients.sagemaker.get_paginator("list_tags").paginate(ResourceArn=arn):
        for tag in page["Tags"]:
            if tag["Key"] == _RUN_TAG:
                return tag["Value"]
    return ""
