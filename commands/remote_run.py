"""A pipeline run that another machine executes: started or found again, followed, awaited."""

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

import click
from zenml.client import Client
from zenml.enums import ExecutionStatus
from zenml.models import PipelineRunResponse

from commands.runs_under_way import close, find_under_way, job_of
from darkroom.backends.sagemaker.clearance import Selection, find, remove
from darkroom.backends.sagemaker.clients import Clients
from darkroom.backends.sagemaker.orchestration import OrchestrationJob
from darkroom.backends.sagemaker.tagged import JOBS
from darkroom.config import Config
from darkroom.config.loading import config_digest
from darkroom.errors import DarkroomError
from darkroom.progress import terminal_progress

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
    text = json.dumps([config_digest(config), source_version, dict(options)], sort_keys=True)
    return f"darkroom-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


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
