"""What Darkroom left in an account: found by its tags, whoever else works there."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any, Literal, TypeAlias

from botocore.exceptions import ClientError

from darkroom.backends.sagemaker.aws_errors import is_missing
from darkroom.backends.sagemaker.clients import Clients
from darkroom.backends.sagemaker.endpoint_state import is_ours, tags_at
from darkroom.sources.concurrency import map_concurrently

Kind: TypeAlias = Literal[
    "endpoint",
    "endpoint configuration",
    "model",
    "alarm",
    "pipeline",
    "training job",
    "tuning job",
    "processing job",
    "transform job",
]
JOBS: tuple[Kind, ...] = ("training job", "tuning job", "processing job", "transform job")

ALARM_PREFIX = "darkroom-"
_THREADS = 8


@dataclass(frozen=True)
class Thing:
    """One resource and its tags."""

    kind: Kind
    name: str
    arn: str
    created: datetime | None = None
    tags: dict[str, str] = field(default_factory=dict)

    def tag(self, name: str) -> str:
        """Value of the tag darkroom:<name>; empty where there is none."""
        return self.tags.get(f"darkroom:{name}", "")


@dataclass(frozen=True)
class _Listing:
    """How SageMaker lists a kind: operation, where the answer has its items, their names."""

    operation: str
    items: str
    item: str
    arguments: tuple[tuple[str, str], ...] = ()


_RUNNING = (("StatusEquals", "InProgress"),)
_LISTINGS: dict[Kind, _Listing] = {
    "endpoint": _Listing("list_endpoints", "Endpoints", "Endpoint"),
    "endpoint configuration": _Listing(
        "list_endpoint_configs", "EndpointConfigs", "EndpointConfig"
    ),
    "model": _Listing("list_models", "Models", "Model"),
    "pipeline": _Listing("list_pipelines", "PipelineSummaries", "Pipeline"),
    "training job": _Listing("list_training_jobs", "TrainingJobSummaries", "TrainingJob", _RUNNING),
    "tuning job": _Listing(
        "list_hyper_parameter_tuning_jobs",
        "HyperParameterTuningJobSummaries",
        "HyperParameterTuningJob",
        _RUNNING,
    ),
    "processing job": _Listing(
        "list_processing_jobs", "ProcessingJobSummaries", "ProcessingJob", _RUNNING
    ),
    "transform job": _Listing(
        "list_transform_jobs", "TransformJobSummaries", "TransformJob", _RUNNING
    ),
}


def tagged(kind: Kind, *, clients: Clients, named: str = "") -> list[Thing]:
    """What there is of a kind and carries a tag darkroom:*, by name; of jobs, what runs.

    Args:
        named: part of the names; fewer have to be asked for their tags.

    Raises:
        botocore.exceptions.ClientError: AWS refuses.
    """
    if kind == "alarm":
        return sorted(_alarms(clients), key=lambda thing: thing.name)
    with_tags = partial(_with_tags, clients=clients)
    found = map_concurrently(
        with_tags, list(_listed(kind, clients=clients, named=named)), threads=_THREADS
    )
    return sorted((thing for thing in found if is_ours(thing.tags)), key=lambda thing: thing.name)


def _listed(kind: Kind, *, clients: Clients, named: str) -> Iterator[Thing]:
    listing = _LISTINGS[kind]
    arguments = dict(listing.arguments) | ({"NameContains": named} if named else {})
    service: Any = clients.sagemaker  # the operation is only known by its name
    for page in service.get_paginator(listing.operation).paginate(**arguments):
        for one in page[listing.items]:
            yield Thing(
                kind,
                name=one[f"{listing.item}Name"],
                arn=one[f"{listing.item}Arn"],
                created=one["CreationTime"],
            )


def _with_tags(thing: Thing, *, clients: Clients) -> Thing:
    """None of it where it was deleted since it was listed."""
    try:
        return replace(thing, tags=tags_at(thing.arn, clients=clients))
    except ClientError as error:
        if not is_missing(error):
            raise
        return thing


def _alarms(clients: Clients) -> Iterator[Thing]:
    paginator = clients.cloudwatch.get_paginator("describe_alarms")
    for page in paginator.paginate(AlarmNamePrefix=ALARM_PREFIX):
        for one in page["MetricAlarms"]:
            tags = clients.cloudwatch.list_tags_for_resource(ResourceARN=one["AlarmArn"])["Tags"]
            by_name = {tag["Key"]: tag["Value"] for tag in tags}
            if is_ours(by_name):
                yield Thing("alarm", name=one["AlarmName"], arn=one["AlarmArn"], tags=by_name)
