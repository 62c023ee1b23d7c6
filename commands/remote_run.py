"""A pipeline run that another machine executes: started or found again, followed, awaited."""

import hashlib
import json
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
) -> PipelineRunResponse:
    """Start the run, or find the one that the same command has started; follow it to its end.

    Args:
        start: starts the pipeline with the tag that it is given.
        options: what else the command asks for; a run that asks for something else is another.

    Raises:
        DarkroomError: the run failed; with its reason and last lines.
    """
    clients = Clients()
    tag = _tag(config, source_version=source_version, options=options)
    run = find_under_way(tag, clients=clients)
    if run:
        terminal_progress().message(f"Run {run.name} is under way: following it")
    else:
        run = start(tag)
    if run is None:
        raise DarkroomError("ZenML did not start the run; is caching of pipelines switched on?")
    job = job_of(run, clients=clients)
    if job is None:
        raise DarkroomError(f"no job executes the run {run.name!r}; give the same command again")
    try:
        failure = job.follow(terminal_progress())
    except KeyboardInterrupt:
        _offer_to_stop(run.name, clients=clients)
        raise
    return _ended(run, failure=failure)


def _tag(config: Config, *, source_version: str, options: Mapping[str, bool]) -> str:
    """The same for the same command on the same data."""
    text = json.dumps([config_digest(config), source_version, dict(options)], sort_keys=True)
    return f"darkroom-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _ended(run: PipelineRunResponse, *, failure: DarkroomError | None) -> PipelineRunResponse:
    """The run in its last state.

    ZenML's word decides, not the job's: a job can complete without having run the pipeline.
    """
    if failure:
        close(run)
        raise failure
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
        for thing in find(Selection(run=run), clients=clients):
            if thing.kind in JOBS:
                remove(thing, clients=clients)
                click.echo(f"Stopping {thing.kind} {thing.name}", err=True)
    else:
        click.echo(
            f"{run} goes on. The same command follows it again; "
            f"`python run.py down --run {run}` stops and removes it.",
            err=True,
        )
