"""Choosing what to remove of all that Darkroom left, and removing it.

Packages of the model registry, logs and what lies on S3 are records: they stay.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from secrets import token_hex

from botocore.exceptions import ClientError

from darkroom.backends.aws_access import error_code
from darkroom.backends.sagemaker.aws_errors import aws_errors_explained, is_missing
from darkroom.backends.sagemaker.clients import Clients
from darkroom.backends.sagemaker.following import Pause, sleep, wait_for
from darkroom.backends.sagemaker.hosting_names import clean
from darkroom.backends.sagemaker.removal import (
    delete_alarms,
    delete_configuration,
    delete_endpoint,
    delete_model,
)
from darkroom.backends.sagemaker.tagged import JOBS, Kind, Thing, tagged
from darkroom.progress import SILENT, Progress

_SECONDS_TO_STOP = 600.0
_BELONGINGS: tuple[Kind, ...] = ("endpoint configuration", "model", "alarm")


@dataclass(frozen=True)
class Selection:
    """What to remove: exactly one of these."""

    name: str = ""
    """An endpoint."""
    run: str = ""
    """All that a run has left."""
    everything: bool = False
    """All that carries a tag of Darkroom's."""
    expired: bool = False
    """Endpoints whose time to live is over."""

    def takes_endpoint(self, thing: Thing) -> bool:
        """Whether an endpoint is to go."""
        if self.expired:
            return _has_expired(thing)
        return thing.name == self.name or self.takes(thing)

    def takes(self, thing: Thing) -> bool:
        """Whether something is to go for its own sake, not for that of an endpoint."""
        of_run = bool(self.run) and self.run == thing.tag("run")
        # ZenML names its pipelines after the run.
        named = thing.kind == "pipeline" and bool(self.run) and thing.name == clean(self.run)
        return self.everything or of_run or named


def find(selection: Selection, *, clients: Clients) -> list[Thing]:
    """What a selection removes, in the order in which it can be removed.

    What belongs to an endpoint that stays, stays, whichever run created it.

    Raises:
        UserError, DarkroomError: AWS refuses, or cannot be asked.
    """
    with aws_errors_explained("what Darkroom left"):
        endpoints = tagged("endpoint", clients=clients)
        going = [thing for thing in endpoints if selection.takes_endpoint(thing)]
        staying = {thing.name for thing in endpoints} - {thing.name for thing in going}
        return [
            *(list(_jobs(selection, clients=clients))),
            *going,
            *_belongings(
                selection, going={thing.name for thing in going}, staying=staying, clients=clients
            ),
        ]


def remove(
    thing: Thing, *, clients: Clients, progress: Progress = SILENT, pause: Pause = sleep
) -> None:
    """Delete one thing, or stop a job; fine if it is gone or has ended.

    Raises:
        UserError, DarkroomError: AWS refuses, or cannot be asked.
    """
    if thing.kind == "endpoint":
        delete_endpoint(thing.name, clients=clients, progress=progress, pause=pause)
    elif thing.kind == "endpoint configuration":
        delete_configuration(thing.name, clients=clients)
    elif thing.kind == "model":
        delete_model(thing.name, clients=clients)
    elif thing.kind == "alarm":
        delete_alarms(thing.tag("endpoint"), clients=clients)
    elif thing.kind == "pipeline":
        _unless_gone(thing, partial(_delete_pipeline, thing.name, clients=clients, pause=pause))
    else:
        _unless_gone(thing, partial(_STOPS[thing.kind], clients, thing.name))


def _jobs(selection: Selection, *, clients: Clients) -> Iterator[Thing]:
    """Jobs that run, and pipelines: where a run or everything is to go."""
    if selection.run or selection.everything:
        for kind in (*JOBS, "pipeline"):
            found = tagged(kind, clients=clients)
            yield from (thing for thing in found if selection.takes(thing))


def _belongings(
    selection: Selection, *, going: set[str], staying: set[str], clients: Clients
) -> Iterator[Thing]:
    for kind in _BELONGINGS:
        for thing in tagged(kind, clients=clients):
            endpoint = thing.tag("endpoint")
            left_over = endpoint == selection.name and bool(endpoint)
            if endpoint in going or (
                endpoint not in staying and (left_over or selection.takes(thing))
            ):
                yield thing


def _has_expired(thing: Thing) -> bool:
    try:
        moment = datetime.fromisoformat(thing.tag("expires"))
    except ValueError:
        return False
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) <= datetime.now(UTC)


def _unless_gone(thing: Thing, end: Callable[[], object]) -> None:
    with aws_errors_explained(f"{thing.kind} {thing.name!r}"):
        try:
            end()
        except ClientError as error:
            has_ended = thing.kind in JOBS and error_code(error) == "ValidationException"
            if not (is_missing(error) or has_ended):
                raise


def _delete_pipeline(name: str, *, clients: Clients, pause: Pause) -> None:
    """Stop what runs of it and delete it: AWS deletes none of which something runs."""
    for arn in _executions(clients, name=name, states=("Executing",)):
        clients.sagemaker.stop_pipeline_execution(
            PipelineExecutionArn=arn, ClientRequestToken=token_hex(16)
        )
    wait_for(
        partial(_executions, name=name, states=("Executing", "Stopping")),
        until=lambda running: not running,
        clients=clients,
        what=f"pipeline {name!r}",
        timeout_seconds=_SECONDS_TO_STOP,
        pause=pause,
    )
    clients.sagemaker.delete_pipeline(PipelineName=name, ClientRequestToken=token_hex(16))


def _executions(clients: Clients, *, name: str, states: tuple[str, ...]) -> list[str]:
    """ARNs of a pipeline's executions that are in one of the states."""
    pages = clients.sagemaker.get_paginator("list_pipeline_executions").paginate(PipelineName=name)
    return [
        execution["PipelineExecutionArn"]
        for page in pages
        for execution in page["PipelineExecutionSummaries"]
        if execution.get("PipelineExecutionStatus") in states
    ]


_STOPS: dict[Kind, Callable[[Clients, str], object]] = {
    "training job": lambda c, name: c.sagemaker.stop_training_job(TrainingJobName=name),
    "tuning job": lambda c, name: c.sagemaker.stop_hyper_parameter_tuning_job(
        HyperParameterTuningJobName=name
    ),
    "processing job": lambda c, name: c.sagemaker.stop_processing_job(ProcessingJobName=name),
    "transform job": lambda c, name: c.sagemaker.stop_transform_job(TransformJobName=name),
}
