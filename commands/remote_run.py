"""A pipeline run that another machine executes: started or found again, followed, awaited."""

import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC
from pathlib import Path

import click
from zenml.client import Client
from zenml.constants import METADATA_ORCHESTRATOR_RUN_ID
from zenml.enums import ExecutionStatus
from zenml.models import PipelineRunResponse
from zenml.orchestrators.publish_utils import (
    publish_failed_step_run,
    publish_pipeline_run_status_update,
)

from darkroom.backends.sagemaker.cleanup import Selection, find, remove
from darkroom.backends.sagemaker.orchestration import OrchestrationJob
from darkroom.backends.sagemaker.resources import JOBS, tagged
from darkroom.backends.sagemaker.session import Clients, aws_errors_explained
from darkroom.base.errors import DarkroomError
from darkroom.base.files import workspace, write_text
from darkroom.base.progress import terminal_progress
from darkroom.base.values import digest_of
from darkroom.config import Config, DataConfig
from darkroom.config.loader import config_digest
from darkroom.data.source_names import public_url
from darkroom.runs.summary import FAILURE_FILE, FailedRun
from darkroom.tracking.runs import fail_unfinished
from stacks.loader import tracking_uri

# --- runs under way ---
# Pipeline runs that another machine or process executes: found, and closed where it has died.
#
# ZenML hears of the end of a run from the job or process that executes it. One that is killed says
# nothing, and its run would be taken for one that is under way for ever.


def find_under_way(tag: str, *, experiment: str, clients: Clients) -> PipelineRunResponse | None:
    """The newest run with the tag whose job runs; those whose job has died are closed.

    A run without a job is left alone: it may be about to be started by somebody else.

    Args:
        experiment: in MLflow, which holds the records of the runs.
    """
    runs = Client().list_pipeline_runs(tags=[tag], in_progress=True, sort_by="desc:created")
    for run in runs.items:
        job = job_of(run, clients=clients)
        if job and job.is_running():
            return run
        if job:
            close(run, experiment=experiment)
    return None


def job_of(run: PipelineRunResponse, *, clients: Clients) -> OrchestrationJob | None:
    """The job that executes a run, where it was ever started.

    ZenML keeps its ARN, unless whoever started it died before it could say so.
    """
    arn = str(run.run_metadata.get(METADATA_ORCHESTRATOR_RUN_ID) or run.orchestrator_run_id or "")
    name = arn.rpartition("/")[2] or _running_job(run.name, clients=clients)
    return OrchestrationJob(name, clients) if name else None


def close(run: PipelineRunResponse, *, experiment: str) -> None:
    """Tell ZenML and MLflow that a run whose job has ended is over; fine if they know."""
    if not Client().get_pipeline_run(run.id).status.is_finished:
        _fail(run, reason="The job that executed it has ended.")
        fail_unfinished(run.name, experiment=experiment, tracking_uri=tracking_uri())


def close_killed(name: str, *, pid: int) -> None:
    """Tell ZenML, MLflow and the user that a run of this machine, which was killed, is over."""
    reason = f"its process ({pid}) was killed, or went down with the machine"
    folder = workspace() / "runs" / name
    had_ended = (folder / "summary.json").exists()  # and was killed while it told of it
    for run in Client().list_pipeline_runs(name=name, size=1, hydrate=True).items:
        if not had_ended:
            _leave_failure(run, folder=folder, reason=reason)
        if not run.status.is_finished:
            _fail(run, reason=reason)
    fail_unfinished(
        name, experiment=None, tracking_uri=tracking_uri(), error="" if had_ended else reason
    )
    terminal_progress().message(
        f"Run {name} did not come to its end: {reason}. ZenML and MLflow are told that it has "
        "failed; what it had finished is reused where it fits"
    )


def _running_job(run: str, *, clients: Clients) -> str:
    with aws_errors_explained(f"the job of run {run!r}"):
        jobs = tagged("training job", clients=clients)
    ours = (job for job in jobs if job.tag("kind") == "orchestration" and job.tag("run") == run)
    return next((job.name for job in ours), "")


def _leave_failure(run: PipelineRunResponse, *, folder: Path, reason: str) -> None:
    """Have a training listed as failed, and removed as one; a batch has no folder."""
    config = (run.config.parameters or {}).get("config")
    if config is None:
        return
    source = config.get("data", {}).get("source", DataConfig().source)
    unfinished = [name for name, step in run.steps.items() if not step.status.is_finished]
    failed = FailedRun(
        name=run.name,
        started=(run.start_time or run.created).replace(tzinfo=UTC),
        stack="local",
        data=public_url(source),
        component=unfinished[0] if unfinished else "",
        kind="interrupted",
        reason=reason,
    )
    write_text(folder / FAILURE_FILE, failed.model_dump_json(indent=1))


def _fail(run: PipelineRunResponse, *, reason: str) -> None:
    for step in Client().get_pipeline_run(run.id).steps.values():
        if not step.status.is_finished:
            publish_failed_step_run(step.id)
    publish_pipeline_run_status_update(run.id, ExecutionStatus.FAILED, status_reason=reason)


# --- remote run ---

_SECONDS_UNTIL_STATUS = 30
"""ZenML learns of the end of a run a little before or after the job that ran it ends."""


def run_remotely(
    start: Callable[[str], PipelineRunResponse | None],
    *,
    config: Config,
    source_version: str,
    options: Mapping[str, bool],
    stays: bool,
) -> PipelineRunResponse:
    """Start the run, or find the one that the same command has started; follow it to its end.

    Args:
        start: starts the pipeline with the tag that it is given.
        options: what else the command asks for; a run that asks for something else is another.
        stays: whether the account outlives this process, as a stand-in of its own does not.

    Raises:
        DarkroomError: the run failed; with its reason and last lines.
    """
    clients, experiment = Clients(), config.tracking.experiment
    tag = _tag(config, source_version=source_version, options=options)
    run = find_under_way(tag, experiment=experiment, clients=clients)
    if run:
        terminal_progress().message(f"Run {run.name} is under way: following it")
    else:
        run = start(tag)
    if run is None:
        raise DarkroomError("ZenML did not start the run; is caching of pipelines switched on?")
    job = job_of(run, clients=clients)
    if job is None:
        raise DarkroomError(f"no job executes the run {run.name!r}; give the same command again")
    failure = _follow(job, run=run.name, stays=stays)
    if failure:
        try:
            close(run, experiment=experiment)
        finally:
            raise failure  # whatever else cannot be reached any more
    return _ended(run)


def _follow(job: OrchestrationJob, *, run: str, stays: bool) -> DarkroomError | None:
    try:
        return job.follow(terminal_progress())
    except KeyboardInterrupt:
        if stays:
            _offer_to_stop(run, clients=job.clients)
        else:
            click.echo(f"\n{run} ends with its stand-in for AWS.", err=True)
        raise


def _stack() -> str:
    """Which one this is, for the commands that are told to the user."""
    return "rehearsal" if os.environ.get("AWS_ENDPOINT_URL") else "sagemaker"


def _tag(config: Config, *, source_version: str, options: Mapping[str, bool]) -> str:
    """The same for the same command on the same data."""
    return f"darkroom-{digest_of([config_digest(config), source_version, dict(options)])[:16]}"


def _ended(run: PipelineRunResponse) -> PipelineRunResponse:
    """The run in its last state.

    ZenML's word decides, not the job's: a job can complete without having run the pipeline.
    """
    deadline = time.monotonic() + _SECONDS_UNTIL_STATUS
    run = Client().get_pipeline_run(run.id)
    while not run.status.is_finished and time.monotonic() < deadline:
        time.sleep(1)
        run = Client().get_pipeline_run(run.id)
    if run.status == ExecutionStatus.COMPLETED:
        return run
    raise DarkroomError(
        f"the job that ran {run.name} has ended, but ZenML says {run.status.value!r}"
    )


def _offer_to_stop(run: str, *, clients: Clients) -> None:
    """Managed jobs go on without us, and cost: ask, where there is somebody to ask."""
    click.echo("", err=True)
    stop = False
    if sys.stdin.isatty():
        with suppress(click.Abort):
            stop = click.confirm(f"Stop what runs for {run} on AWS?", default=False, err=True)
    if stop:
        stop_jobs(run, clients=clients)
    else:
        click.echo(
            f"{run} goes on. The same command follows it again; "
            f"`python run.py down --run {run} --stack {_stack()}` stops and removes it.",
            err=True,
        )


def stop_jobs(run: str, *, clients: Clients) -> None:
    """Stop a run's jobs, and say what goes on costing: an endpoint may be somebody's by now."""
    found = find(Selection(run=run), clients=clients)
    for job in (thing for thing in found if thing.kind in JOBS):
        remove(job, clients=clients)
        click.echo(f"Stopping {job.kind} {job.name}", err=True)
    for endpoint in (thing for thing in found if thing.kind == "endpoint"):
        click.echo(
            f"The endpoint {endpoint.name} goes on, and costs: "
            f"`python run.py down --run {run} --stack {_stack()}` removes it.",
            err=True,
        )
