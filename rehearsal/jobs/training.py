"""Running a training job: channels, containers, checkpoints, artifacts.

    job = launch(request, state=state)     as CreateTrainingJob; also for the jobs of a tuning
    job.done.wait(); job.status; job.metrics; job.failure
    stop(job)                              SIGTERM, SIGKILL after the grace

`request` is that of CreateTrainingJob, checked.
"""

import contextlib
import shutil
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

from rehearsal.emulator.errors import in_use
from rehearsal.emulator.state import State
from rehearsal.jobs import archives
from rehearsal.jobs.attempt import Attempt, Outcome
from rehearsal.jobs.container import remove_copies
from rehearsal.jobs.failures import JobFailure
from rehearsal.jobs.training_job import ENDED, TrainingJob
from rehearsal.jobs.training_records import note_gaps
from rehearsal.jobs.warm_pools import open_pool, reuse_pool


def launch(request: Mapping[str, Any], *, state: State, tuning_job_arn: str = "") -> TrainingJob:
    """Create a training job and start it.

    Raises:
        AwsError: ResourceInUse, where the name was used before.
    """
    name = request["TrainingJobName"]
    arn = state.arn("training-job", name)
    with state.lock:
        jobs = state.kept(TrainingJob)
        if name in jobs:
            raise in_use(
                "Training job names must be unique within an AWS account and region. A training "
                f"job with this name already exists ({arn})"
            )
        folder = state.settings.folder / "jobs" / name
        job = TrainingJob(request, arn=arn, folder=folder, tuning_job_arn=tuning_job_arn)
        job.enter("Starting", message="Starting the training job")
        jobs[name] = job
        state.tags(arn).update({tag["Key"]: tag["Value"] for tag in request.get("Tags", ())})
    note_gaps(job, state=state)
    reuse_pool(job, state=state)
    state.start(lambda: _run(job, state=state), name=f"training {name}")
    return job


def stop(job: TrainingJob, *, state: State) -> None:
    """Ask a job to end; harmless where it has ended."""
    with state.lock:
        if job.status not in ENDED:
            job.status = "Stopping"
            job.enter("Stopping", message="Stopping the training job")
            job.stop_requested.set()


def _run(job: TrainingJob, *, state: State) -> None:
    """A job's thread."""
    try:
        with _slot(job, state=state):
            _attempts(job, state=state)
    except JobFailure as failure:
        _finish(job, "Failed", message="Training job failed", failure=str(failure), state=state)
    except Exception as error:
        if not state.ending.is_set():
            traceback.print_exc()
        reason = f"InternalServerError: the rehearsal failed, not the job: {error!r}"
        _finish(job, "Failed", message="Training job failed", failure=reason, state=state)


@contextlib.contextmanager
def _slot(job: TrainingJob, *, state: State) -> Iterator[None]:
    """Wait for one of the places that --jobs-at-once leaves; a job may be stopped meanwhile."""
    while not state.job_slots.acquire(timeout=0.2):
        if job.stop_requested.is_set() or state.ending.is_set():
            break
    else:
        try:
            yield
        finally:
            state.job_slots.release()
        return
    yield


def _attempts(job: TrainingJob, *, state: State) -> None:
    """Train, and again after each interruption of a spot machine."""
    if reason := state.faults.capacity(job.name):
        raise JobFailure(reason)
    while True:
        attempt = Attempt(job, state=state)
        outcome = attempt.run()
        if outcome is not Outcome.INTERRUPTED:
            break
        job.interruptions += 1
        job.enter("Restarting", message="Restarting the training job after an interruption")
        # The next machine holds nothing but what lies on S3; the logs are ours.
        for container in attempt.containers:
            shutil.rmtree(container.folder, ignore_errors=True)
    try:
        _conclude(job, outcome=outcome, attempt=attempt, state=state)
    finally:
        for container in attempt.containers:
            remove_copies(container, keep=("input/config", "output"))


def _conclude(job: TrainingJob, *, outcome: Outcome, attempt: Attempt, state: State) -> None:
    if outcome is Outcome.NEVER_STARTED:
        _finish(job, "Stopped", message="Training job stopped", state=state)
        return
    if outcome is Outcome.FAILED:
        raise JobFailure(attempt.reason)
    with state.lock:
        if job.status == "InProgress":
            job.enter("Uploading", message="Uploading generated training model")
    _store_results(job, attempt=attempt, state=state)
    if outcome is Outcome.COMPLETED:
        _finish(job, "Completed", message="Training job completed", state=state)
    elif outcome is Outcome.STOPPED:
        _finish(job, "Stopped", message="Training job stopped", state=state)
    else:
        message = "Training job runtime exceeded MaxRuntimeInSeconds provided"
        _finish(job, "Stopped", secondary=outcome.value, message=message, state=state)


def _store_results(job: TrainingJob, *, attempt: Attempt, state: State) -> None:
    output = job.request["OutputDataConfig"]
    packed = output.get("CompressionType", "GZIP") == "GZIP"
    uri = f"{output['S3OutputPath'].rstrip('/')}/{job.name}/output"
    roots = [container.ml for container in attempt.containers]
    try:
        job.artifacts = archives.store(
            roots, "model", uri=uri, name="model", packed=packed, state=state
        )
        if not archives.is_empty(roots, "output/data"):
            archives.store(roots, "output/data", uri=uri, name="output", packed=packed, state=state)
    except Exception as error:
        raise JobFailure(f"ClientError: Artifact upload failed: {error}") from error


def _finish(
    job: TrainingJob,
    status: str,
    *,
    message: str,
    state: State,
    secondary: str = "",
    failure: str = "",
) -> None:
    with state.lock:
        if status != "Failed":
            open_pool(job)
        else:
            job.warm_pool = {}
        job.finish(status, secondary=secondary, message=message, failure=failure)
