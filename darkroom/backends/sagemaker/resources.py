"""Names and tags by which the same work is found again, and resources found by their tags."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from itertools import count
from typing import Any, Literal, TypeAlias, TypedDict

from botocore.exceptions import ClientError

from darkroom.backends.sagemaker.session import Clients, SageMakerContext, is_missing
from darkroom.base.concurrency import map_concurrently
from darkroom.base.values import digest_of
from darkroom.config import Hyperparameters
from darkroom.config.debugging import RecordingConfig
from darkroom.config.tuning import TuningConfig
from darkroom.data.dataset import Dataset

# --- names and tags of jobs ---
# Names and tags of jobs, such that the same work is found again instead of paid again.
#
# darkroom-training-<digest>-<attempt>    at most 63 characters
# darkroom-tuning-<digest>-<attempt>      at most 32, SageMaker's limit for tuning jobs
#
# The digest is of what decides the result: the data's fingerprint, the hyperparameters, the
# search, what is recorded, the instances (type, number and who sees which images: they decide
# number formats and the order of the images), and `site.fresh`. What merely decides where and
# how cheaply a job runs (spot, volume, network, keys, tags, time limits, input mode) is left
# out, and so are the rules that judge it, and the image: it is built anew for every change of
# any file, and an interrupted run would not find its jobs again. To train anew with changed
# code, run with `--no-cache`.

TrainingKind = Literal["training", "tuning"]

_DIGITS: dict[TrainingKind, int] = {"training": 16, "tuning": 12}
_NO_MATTER = {"enabled", "timeout_seconds"}
"""Of a tuning: what does not change which values are tried."""


class Tag(TypedDict):
    """As boto3 takes it."""

    Key: str
    Value: str


@dataclass(frozen=True)
class JobIdentity:
    """What a job is to do, whichever attempt at it."""

    kind: TrainingKind
    digest: str

    def name(self, attempt: int) -> str:
        """Of the attempt, counted from 1."""
        return f"darkroom-{self.kind}-{self.digest}-{attempt}"

    def names(self) -> Iterator[str]:
        """Of all attempts, one after the other."""
        return (self.name(attempt) for attempt in count(1))

    def place(self, site: SageMakerContext, *parts: str) -> str:
        """Where on S3 the work lies, whichever attempt does it."""
        return site.uri("jobs", self.digest, *parts)


def training_identity(
    dataset: Dataset,
    *,
    hyperparameters: Hyperparameters,
    recording: RecordingConfig,
    site: SageMakerContext,
) -> JobIdentity:
    """The identity of a training."""
    work = _work(dataset, hyperparameters=hyperparameters, recording=recording, site=site)
    return JobIdentity("training", _digest("training", work))


def tuning_identity(
    dataset: Dataset,
    *,
    hyperparameters: Hyperparameters,
    tuning: TuningConfig,
    recording: RecordingConfig,
    site: SageMakerContext,
) -> JobIdentity:
    """The identity of a search; with more trials it is another one."""
    content = {
        **_work(dataset, hyperparameters=hyperparameters, recording=recording, site=site),
        "tuning": tuning.model_dump(exclude=_NO_MATTER),
        "jobs": site.config.tuning.model_dump(exclude={"parallel_jobs"}),
    }
    return JobIdentity("tuning", _digest("tuning", content))


def tags_of(site: SageMakerContext, **more: str) -> list[Tag]:
    """The tags of whatever is created: of the run, `darkroom:<name>` for each of `more`."""
    ours = {"run": site.run, **more}
    tags = {f"darkroom:{name}": value for name, value in ours.items() if value}
    return [Tag(Key=key, Value=value) for key, value in {**tags, **site.config.tags}.items()]


def take_over(arn: str, *, site: SageMakerContext, clients: Clients) -> None:
    """Tag a job that an earlier run left running with this run, which waits for it now.

    So that stopping this run, or removing what it left, finds the job.

    Raises:
        botocore.exceptions.ClientError: AWS refuses.
    """
    if site.run:
        tag = Tag(Key="darkroom:run", Value=site.run)
        clients.sagemaker.add_tags(ResourceArn=arn, Tags=[tag])


def _work(
    dataset: Dataset,
    *,
    hyperparameters: Hyperparameters,
    recording: RecordingConfig,
    site: SageMakerContext,
) -> dict[str, object]:
    machines = {"instance_type", "instance_count", "distribution"}
    return {
        "data": dataset.fingerprint,
        "hyperparameters": hyperparameters.model_dump(),
        "recording": recording.model_dump(),
        "machines": site.config.training.model_dump(include=machines),
        "fresh": site.fresh,
    }


def _digest(kind: TrainingKind, content: dict[str, object]) -> str:
    return digest_of([kind, content])[: _DIGITS[kind]]


# --- endpoint state ---


def tags_at(arn: str, *, clients: Clients) -> dict[str, str]:
    """Tags of whatever SageMaker has at an ARN."""
    pages = clients.sagemaker.get_paginator("list_tags").paginate(ResourceArn=arn)
    return {tag["Key"]: tag["Value"] for page in pages for tag in page["Tags"]}


def is_ours(tags: dict[str, str]) -> bool:
    """Whether Darkroom created what carries the tags."""
    return any(key.startswith("darkroom:") for key in tags)


# --- resources by tag ---

ResourceKind: TypeAlias = Literal[
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
JOBS: tuple[ResourceKind, ...] = ("training job", "tuning job", "processing job", "transform job")

ALARM_PREFIX = "darkroom-"
_THREADS = 8


@dataclass(frozen=True)
class Resource:
    """One resource and its tags."""

    kind: ResourceKind
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
_LISTINGS: dict[ResourceKind, _Listing] = {
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


def tagged(kind: ResourceKind, *, clients: Clients, named: str = "") -> list[Resource]:
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


def _listed(kind: ResourceKind, *, clients: Clients, named: str) -> Iterator[Resource]:
    listing = _LISTINGS[kind]
    arguments = dict(listing.arguments) | ({"NameContains": named} if named else {})
    service: Any = clients.sagemaker  # the operation is only known by its name
    for page in service.get_paginator(listing.operation).paginate(**arguments):
        for one in page[listing.items]:
            yield Resource(
                kind,
                name=one[f"{listing.item}Name"],
                arn=one[f"{listing.item}Arn"],
                created=one["CreationTime"],
            )


def _with_tags(thing: Resource, *, clients: Clients) -> Resource:
    """None of it where it was deleted since it was listed."""
    try:
        return replace(thing, tags=tags_at(thing.arn, clients=clients))
    except ClientError as error:
        if not is_missing(error):
            raise
        return thing


def _alarms(clients: Clients) -> Iterator[Resource]:
    paginator = clients.cloudwatch.get_paginator("describe_alarms")
    for page in paginator.paginate(AlarmNamePrefix=ALARM_PREFIX):
        for one in page["MetricAlarms"]:
            tags = clients.cloudwatch.list_tags_for_resource(ResourceARN=one["AlarmArn"])["Tags"]
            by_name = {tag["Key"]: tag["Value"] for tag in tags}
            if is_ours(by_name):
                yield Resource("alarm", name=one["AlarmName"], arn=one["AlarmArn"], tags=by_name)
