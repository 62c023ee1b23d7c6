"""The API of tuning jobs."""

from collections.abc import Mapping
from typing import Any

from rehearsal.emulator.errors import AwsError, in_use, invalid, not_executed
from rehearsal.emulator.listing import cut, page
from rehearsal.emulator.operations import Answer, Request, operation
from rehearsal.emulator.state import State
from rehearsal.emulator.tags import keep_tags
from rehearsal.jobs.request_checks import check_training_request
from rehearsal.tuning.child_requests import child_name, child_request
from rehearsal.tuning.jobs import (
    TuningJob,
    child_summary,
    describe_tuning,
    tuning_job_named,
    tuning_summary,
)
from rehearsal.tuning.running import start_tuning
from rehearsal.tuning.warm_start import read_parents


@operation("CreateHyperParameterTuningJob")
def create_tuning_job(request: Request, *, state: State) -> Answer:
    """Start a search."""
    _refuse_unsupported(request, state=state)
    name = request["HyperParameterTuningJobName"]
    arn = state.arn("hyper-parameter-tuning-job", name)
    parents = read_parents(request, state=state)
    job = TuningJob(request, arn=arn, parents=parents)
    with state.lock:
        if name in state.kept(TuningJob):
            raise in_use(
                "Hyperparameter tuning job names must be unique within an AWS account and "
                f"region. A tuning job with this name already exists ({arn})."
            )
        state.kept(TuningJob)[name] = job
    try:
        start_tuning(job, state=state)
    except (ValueError, TypeError) as error:
        with state.lock:
            state.kept(TuningJob).pop(name, None)
        raise invalid(str(error)) from error
    keep_tags(arn, request.get("Tags", []), state=state)
    return {"HyperParameterTuningJobArn": arn}


@operation("DescribeHyperParameterTuningJob")
def describe_tuning_job(request: Request, *, state: State) -> Answer:
    """Show a tuning job."""
    job = tuning_job_named(request["HyperParameterTuningJobName"], state=state)
    return describe_tuning(job, state=state)


@operation("ListHyperParameterTuningJobs")
def list_tuning_jobs(request: Request, *, state: State) -> Answer:
    """Show all tuning jobs."""
    with state.lock:
        rows = [tuning_summary(job) for job in state.kept(TuningJob).values()]
    return page(
        rows,
        request=request,
        key="HyperParameterTuningJobSummaries",
        kind="HyperParameterTuningJob",
    )


@operation("StopHyperParameterTuningJob")
def stop_tuning_job(request: Request, *, state: State) -> Answer:
    """Stop a tuning job with all its training jobs; harmless where it has ended."""
    job = tuning_job_named(request["HyperParameterTuningJobName"], state=state)
    with state.lock:
        if job.status == "InProgress":
            job.status = "Stopping"
            job.stop_requested.set()
    return {}


@operation("DeleteHyperParameterTuningJob")
def delete_tuning_job(request: Request, *, state: State) -> Answer:
    """Forget a tuning job that has ended; its training jobs stay."""
    job = tuning_job_named(request["HyperParameterTuningJobName"], state=state)
    if job.status in ("InProgress", "Stopping"):
        raise in_use(f"Tuning job {job.name} is {job.status}; only an ended one can be deleted.")
    with state.lock:
        state.kept(TuningJob).pop(job.name, None)
        state.forget_tags(job.arn)
    return {}


@operation("ListTrainingJobsForHyperParameterTuningJob")
def list_children(request: Request, *, state: State) -> Answer:
    """Show the training jobs of a tuning job."""
    job = tuning_job_named(request["HyperParameterTuningJobName"], state=state)
    with state.lock:
        rows = [child_summary(child, state=state) for child in job.children]
    wanted = request.get("StatusEquals")
    rows = [row for row in rows if wanted in (None, row["TrainingJobStatus"])]
    key = _sort_key(request.get("SortBy", "Name"))
    rows = [row for row in rows if key(row) is not None]
    rows.sort(key=key, reverse=request.get("SortOrder") == "Descending")
    return cut(rows, request=request, key="TrainingJobSummaries")


def _sort_key(by: str) -> Any:  # noqa: ANN401
    """Jobs without an objective are left out where sorting is by it, as on AWS."""
    simple = {
        "Name": "TrainingJobName",
        "CreationTime": "CreationTime",
        "Status": "TrainingJobStatus",
    }
    if by in simple:
        return lambda row: row[simple[by]]
    return lambda row: row.get("FinalHyperParameterTuningJobObjectiveMetric", {}).get("Value")


def _refuse_unsupported(request: Request, *, state: State) -> None:
    if request.get("Autotune", {}).get("Mode") == "Enabled":
        raise not_executed("Autotune", why="how AWS chooses ranges is not known")
    for missing in _missing(request):
        raise missing
    name = child_name(request["HyperParameterTuningJobName"], number=1)
    child = child_request(request["TrainingJobDefinition"], name=name, tuned={}, objective="")
    check_training_request(child, state=state)


def _missing(request: Mapping[str, Any]) -> list[AwsError]:
    config, definition = (
        request["HyperParameterTuningJobConfig"],
        request.get("TrainingJobDefinition"),
    )
    problems = []
    if not definition:
        problems.append(invalid("TrainingJobDefinition is required."))
    if "HyperParameterTuningJobObjective" not in config:
        problems.append(invalid("HyperParameterTuningJobObjective is required."))
    return problems
