"""List what Darkroom left in an account, and remove it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from secrets import token_hex
from typing import Any, Literal, TypeAlias

from botocore.exceptions import ClientError
from pydantic import BaseModel, ConfigDict

from darkroom.backends.sagemaker.costs.prices import hourly_price
from darkroom.backends.sagemaker.hosting.resources import (
    clean,
    delete_alarms,
    delete_configuration,
    delete_endpoint,
    delete_model,
)
from darkroom.backends.sagemaker.hosting.several_models import models_behind
from darkroom.backends.sagemaker.hosting.state import describe, describe_configuration
from darkroom.backends.sagemaker.resources import JOBS, Resource, ResourceKind, tagged
from darkroom.backends.sagemaker.retry import Pause, sleep, wait_for
from darkroom.backends.sagemaker.session import Clients, aws_errors_explained, is_missing
from darkroom.backends.storage.access import error_code
from darkroom.base.progress import SILENT, Progress

# --- endpoints of the account ---
# The endpoints that Darkroom has in an account: what they run on, cost, and until when.

Price: TypeAlias = Callable[[str, str], float | None]
"""USD for one instance and hour of hosting, from instance type and region; None: unknown."""
EndpointKind: TypeAlias = Literal[
    "realtime", "serverless", "asynchronous", "multi-model", "unknown"
]


class EndpointRow(BaseModel):
    """One endpoint."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    status: str
    kind: EndpointKind
    instance_type: str | None = None
    instances: int | None = None
    """As many as run now."""
    cost_per_hour: float | None = None
    """USD on demand; None: no table knows the price. Serverless costs by request: 0 idle,
    unless concurrency is provisioned."""
    created: datetime | None = None
    expires: datetime | None = None
    """Afterwards `run.py down --expired` removes it."""
    run: str = ""
    model_version: str = ""
    models: tuple[str, ...] = ()
    """The names of several; one alone has none."""

    @property
    def has_expired(self) -> bool:
        """Whether its time to live is over."""
        return self.expires is not None and self.expires <= datetime.now(UTC)


def hosting_price(instance_type: str, region: str) -> float | None:
    """As the dated price table has it."""
    return hourly_price(instance_type, region=region, kind="hosting")


def list_endpoints(
    *, clients: Clients, region: str, price: Price = hosting_price
) -> list[EndpointRow]:
    """All endpoints that carry a tag of Darkroom's, by name.

    Raises:
        UserError, DarkroomError: AWS refuses, or cannot be asked.
    """
    with aws_errors_explained("the list of endpoints"):
        found = tagged("endpoint", clients=clients)
        return [_row(thing, clients=clients, region=region, price=price) for thing in found]


def _row(thing: Resource, *, clients: Clients, region: str, price: Price) -> EndpointRow:
    state = describe(thing.name, clients=clients)
    configuration = describe_configuration(state.configuration, clients=clients) if state else {}
    variant: dict[str, Any] = configuration.get("ProductionVariants", [{}])[0]
    instance_type = variant.get("InstanceType")
    is_queue = "AsyncInferenceConfig" in configuration
    instances = _instances(thing.name, clients=clients, none=is_queue) if instance_type else None
    rate = price(instance_type, region) if instance_type else None
    models = models_behind(variant.get("ModelName", ""), clients=clients)
    return EndpointRow(
        name=thing.name,
        status=state.status if state else "Deleted",
        kind="multi-model" if models is not None else _kind(configuration, variant=variant),
        instance_type=instance_type,
        instances=instances,
        cost_per_hour=_cost(variant, rate=rate, instances=instances),
        created=thing.created,
        expires=_moment(thing.tag("expires")),
        run=thing.tag("run"),
        model_version=thing.tag("version"),
        models=tuple(models[0]) if models else (),
    )


def _instances(name: str, *, clients: Clients, none: bool) -> int | None:
    """As many as run; None: it is not known yet.

    Args:
        none: whether it may be in service without any.
    """
    found = clients.sagemaker.describe_endpoint(EndpointName=name)
    counts = [v.get("CurrentInstanceCount", 0) for v in found.get("ProductionVariants", [])]
    return sum(counts) or (0 if none and counts else None)


def _kind(configuration: dict[str, Any], *, variant: dict[str, Any]) -> EndpointKind:
    if "AsyncInferenceConfig" in configuration:
        return "asynchronous"
    if "ServerlessConfig" in variant:
        return "serverless"
    return "realtime" if variant else "unknown"


def _cost(variant: dict[str, Any], *, rate: float | None, instances: int | None) -> float | None:
    if "ServerlessConfig" in variant:
        return None if variant["ServerlessConfig"].get("ProvisionedConcurrency") else 0.0
    # Instances that are on their way are paid too: as many as were asked for.
    wanted = int(variant.get("InitialInstanceCount", 1))
    return None if rate is None else rate * (wanted if instances is None else instances)


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


# --- selection and removal ---

_SECONDS_TO_STOP = 600.0
_DEPENDENT_KINDS: tuple[ResourceKind, ...] = ("endpoint configuration", "model", "alarm")


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

    def takes_endpoint(self, thing: Resource) -> bool:
        """Whether an endpoint is to go."""
        if self.expired:
            return _has_expired(thing)
        return thing.name == self.name or self.takes(thing)

    def takes(self, thing: Resource) -> bool:
        """Whether something is to go for its own sake, not for that of an endpoint."""
        of_run = bool(self.run) and self.run == thing.tag("run")
        # ZenML names its pipelines after the run.
        named = thing.kind == "pipeline" and bool(self.run) and thing.name == clean(self.run)
        return self.everything or of_run or named


def find(selection: Selection, *, clients: Clients) -> list[Resource]:
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
    thing: Resource, *, clients: Clients, progress: Progress = SILENT, pause: Pause = sleep
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


def _jobs(selection: Selection, *, clients: Clients) -> Iterator[Resource]:
    """Jobs that run, and pipelines: where a run or everything is to go."""
    if selection.run or selection.everything:
        for kind in (*JOBS, "pipeline"):
            found = tagged(kind, clients=clients)
            yield from (thing for thing in found if selection.takes(thing))


def _belongings(
    selection: Selection, *, going: set[str], staying: set[str], clients: Clients
) -> Iterator[Resource]:
    for kind in _DEPENDENT_KINDS:
        for thing in tagged(kind, clients=clients):
            endpoint = thing.tag("endpoint")
            left_over = endpoint == selection.name and bool(endpoint)
            if endpoint in going or (
                endpoint not in staying and (left_over or selection.takes(thing))
            ):
                yield thing


def _has_expired(thing: Resource) -> bool:
    try:
        moment = datetime.fromisoformat(thing.tag("expires"))
    except ValueError:
        return False
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) <= datetime.now(UTC)


def _unless_gone(thing: Resource, end: Callable[[], object]) -> None:
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


_STOPS: dict[ResourceKind, Callable[[Clients, str], object]] = {
    "training job": lambda c, name: c.sagemaker.stop_training_job(TrainingJobName=name),
    "tuning job": lambda c, name: c.sagemaker.stop_hyper_parameter_tuning_job(
        HyperParameterTuningJobName=name
    ),
    "processing job": lambda c, name: c.sagemaker.stop_processing_job(ProcessingJobName=name),
    "transform job": lambda c, name: c.sagemaker.stop_transform_job(TransformJobName=name),
}
