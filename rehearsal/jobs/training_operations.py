"""SageMaker's operations on training jobs."""

import threading

from rehearsal.emulator.errors import invalid
from rehearsal.emulator.operations import Answer, Request, awaited, operation, page
from rehearsal.emulator.state import State
from rehearsal.jobs import training
from rehearsal.jobs.request_checks import check_training_request
from rehearsal.jobs.training import refresh_pools
from rehearsal.jobs.training_job import ENDED, TrainingJob, describe, summary


@operation("CreateTrainingJob")
def create_training_job(request: Request, *, state: State) -> Answer:
    """Start a training job."""
    check_training_request(request, state=state)
    return {"TrainingJobArn": training.launch(request, state=state).arn}


@operation("DescribeTrainingJob")
def describe_training_job(request: Request, *, state: State) -> Answer:
    """All of one job."""
    refresh_pools(state)
    return describe(_job(request, state=state), state=state)


@operation("StopTrainingJob")
def stop_training_job(request: Request, *, state: State) -> Answer:
    """Ask a job to end."""
    job = _job(request, state=state)
    if job.status in ENDED:
        raise invalid(
            f"The request was rejected because the training job is in status {job.status}."
        )
    training.stop(job, state=state)
    return {}


@operation("ListTrainingJobs")
def list_training_jobs(request: Request, *, state: State) -> Answer:
    """The jobs that the filters leave."""
    refresh_pools(state)
    with state.lock:
        rows = [summary(j) for j in state.kept(TrainingJob).values() if _wanted(j, request)]
    return page(rows, request=request, key="TrainingJobSummaries", kind="TrainingJob")


@awaited("DescribeTrainingJob")
def training_end(request: Request, *, state: State) -> threading.Event:
    """What waiters wait for."""
    return _job(request, state=state).done


def _wanted(job: TrainingJob, request: Request) -> bool:
    wanted = request.get("WarmPoolStatusEquals")
    return wanted is None or job.warm_pool.get("Status") == wanted


def _job(request: Request, *, state: State) -> TrainingJob:
    name = request["TrainingJobName"]
    job = state.kept(TrainingJob).get(name)
    if job is None:
        raise invalid("Requested resource not found.")
    return job
