"""SageMaker's operations on processing jobs."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rehearsal.emulator.errors import invalid, not_executed
from rehearsal.emulator.listing import page
from rehearsal.emulator.operations import Answer, Request, awaited, operation
from rehearsal.emulator.state import State
from rehearsal.jobs import processing
from rehearsal.jobs.container import unknown_image
from rehearsal.jobs.processing_job import ENDED, ProcessingJob

_AWS_IMAGES = {
    "clarify": "SageMaker Clarify runs in AWS's own image",
    "model-monitor": "SageMaker Model Monitor runs in AWS's own image",
    "debugger": "SageMaker Debugger's rules run in AWS's own image",
    "data-wrangler": "Data Wrangler runs in AWS's own image",
}
_ML = "/opt/ml"
_SHOWN = (
    "ProcessingInputs",
    "ProcessingOutputConfig",
    "ProcessingJobName",
    "ProcessingResources",
    "StoppingCondition",
    "AppSpecification",
    "Environment",
    "NetworkConfig",
    "RoleArn",
    "ExperimentConfig",
)


@operation("CreateProcessingJob")
def create_processing_job(request: Request, *, state: State) -> Answer:
    """Start a processing job."""
    check_processing_request(request, state=state)
    return {"ProcessingJobArn": processing.launch(request, state=state).arn}


@operation("DescribeProcessingJob")
def describe_processing_job(request: Request, *, state: State) -> Answer:
    """All of one job."""
    return describe(_job(request, state=state), state=state)


def describe(job: ProcessingJob, *, state: State) -> dict[str, Any]:
    """The answer of DescribeProcessingJob."""
    with state.lock:
        found: dict[str, Any] = {
            "ProcessingJobArn": job.arn,
            "ProcessingJobStatus": job.status,
            "CreationTime": job.created,
            "LastModifiedTime": job.ended or job.started or job.created,
            **{name: job.request[name] for name in _SHOWN if name in job.request},
        }
        later = {
            "ProcessingStartTime": job.started,
            "ProcessingEndTime": job.ended,
            "FailureReason": job.failure,
            "ExitMessage": job.exit_message,
        }
    return found | {name: value for name, value in later.items() if value}


@awaited("DescribeProcessingJob")
def processing_end(request: Request, *, state: State) -> threading.Event:
    """What waiters wait for."""
    return _job(request, state=state).done


@operation("StopProcessingJob")
def stop_processing_job(request: Request, *, state: State) -> Answer:
    """Ask a job to end."""
    job = _job(request, state=state)
    if job.status in ENDED:
        raise invalid(f"The request was rejected because the job is in status {job.status}.")
    processing.stop(job, state=state)
    return {}


@operation("ListProcessingJobs")
def list_processing_jobs(request: Request, *, state: State) -> Answer:
    """The jobs that the filters leave."""
    with state.lock:
        rows = [_row(job) for job in state.kept(ProcessingJob).values()]
    return page(rows, request=request, key="ProcessingJobSummaries", kind="ProcessingJob")


def check_processing_request(request: Request, *, state: State) -> None:
    """Refuse what AWS would do and the rehearsal cannot.

    Raises:
        AwsError: NotExecutedInRehearsal, with all reasons.
    """
    reasons = list(_reasons(request, state=state))
    if reasons:
        raise not_executed("this processing job", why="; ".join(reasons))


def _reasons(request: Request, *, state: State) -> Iterator[str]:
    specification = request["AppSpecification"]
    image = specification["ImageUri"]
    if why := unknown_image(image, state=state):
        repository = image.rpartition("/")[2]
        of_aws = next((told for part, told in _AWS_IMAGES.items() if part in repository), "")
        yield of_aws or why
        if of_aws:
            return  # whatever else it asks for
    if not specification.get("ContainerEntrypoint"):
        yield "the image's own entrypoint is not known here: name ContainerEntrypoint"
    for source in request.get("ProcessingInputs", ()):
        if "S3Input" not in source:
            yield f"input {source['InputName']!r}: only S3Input is read"
        elif source["S3Input"].get("S3InputMode", "File") != "File":
            yield f"input {source['InputName']!r}: Pipe mode; use File"
    for output in request.get("ProcessingOutputConfig", {}).get("Outputs", ()):
        if "S3Output" not in output:
            yield f"output {output['OutputName']!r}: only S3Output is written"
    for place in _outside_paths(request):
        yield f"the LocalPath {place!r} is not below /opt/ml"


def _outside_paths(request: Request) -> Iterator[str]:
    """LocalPaths of inputs and outputs that are not below /opt/ml."""
    parts = [i.get("S3Input", {}) for i in request.get("ProcessingInputs", ())]
    outputs = request.get("ProcessingOutputConfig", {}).get("Outputs", ())
    parts += [o.get("S3Output", {}) for o in outputs]
    for part in parts:
        place = part.get("LocalPath", f"{_ML}/")
        if not place.startswith(f"{_ML}/") or ".." in Path(place).parts:
            yield place


def _row(job: ProcessingJob) -> dict[str, Any]:
    row = {
        "ProcessingJobName": job.name,
        "ProcessingJobArn": job.arn,
        "CreationTime": job.created,
        "LastModifiedTime": job.ended or job.created,
        "ProcessingJobStatus": job.status,
    }
    later = {"ProcessingEndTime": job.ended, "FailureReason": job.failure}
    return row | {name: value for name, value in later.items() if value}


def _job(request: Request, *, state: State) -> ProcessingJob:
    job = state.kept(ProcessingJob).get(request["ProcessingJobName"])
    if job is None:
        raise invalid("Could not find requested job")
    return job
