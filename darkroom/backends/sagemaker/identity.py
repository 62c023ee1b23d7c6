"""Names and tags of jobs, such that the same work is found again instead of paid again.

    darkroom-training-<digest>-<attempt>    at most 63 characters
    darkroom-tuning-<digest>-<attempt>      at most 32, SageMaker's limit for tuning jobs

The digest is of what decides the result: the data's fingerprint, the hyperparameters, the
search, what is recorded, the instances (type, number and who sees which images: they decide
number formats and the order of the images), and `site.fresh`. What merely decides where and
how cheaply a job runs (spot, volume, network, keys, tags, time limits, input mode) is left
out, and so are the rules that judge it, and the image: it is built anew for every change of
any file, and an interrupted run would not find its jobs again. To train anew with changed
code, run with `--no-cache`.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Literal, TypedDict

from darkroom.backends.sagemaker.clients import Clients
from darkroom.backends.sagemaker.site import Site
from darkroom.config import Hyperparameters
from darkroom.config.debugging import RecordingConfig
from darkroom.config.tuning import TuningConfig
from darkroom.dataset import Dataset

Kind = Literal["training", "tuning"]

_DIGITS: dict[Kind, int] = {"training": 16, "tuning": 12}
_NO_MATTER = {"enabled", "timeout_seconds"}
"""Of a tuning: what does not change which values are tried."""


class Tag(TypedDict):
    """As boto3 takes it."""

    Key: str
    Value: str


@dataclass(frozen=True)
class JobIdentity:
    """What a job is to do, whichever attempt at it."""

    kind: Kind
    digest: str

    def name(self, attempt: int) -> str:
        """Of the attempt, counted from 1."""
        return f"darkroom-{self.kind}-{self.digest}-{attempt}"

    def names(self) -> Iterator[str]:
        """Of all attempts, one after the other."""
        return (self.name(attempt) for attempt in count(1))

    def place(self, site: Site, *parts: str) -> str:
        """Where on S3 the work lies, whichever attempt does it."""
        return site.uri("jobs", self.digest, *parts)


def training_identity(
    dataset: Dataset, *, hyperparameters: Hyperparameters, recording: RecordingConfig, site: Site
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
    site: Site,
) -> JobIdentity:
    """The identity of a search; with more trials it is another one."""
    content = {
        **_work(dataset, hyperparameters=hyperparameters, recording=recording, site=site),
        "tuning": tuning.model_dump(exclude=_NO_MATTER),
        "jobs": site.config.tuning.model_dump(exclude={"parallel_jobs"}),
    }
    return JobIdentity("tuning", _digest("tuning", content))


def tags_of(site: Site, **more: str) -> list[Tag]:
    """The tags of whatever is created: of the run, `darkroom:<name>` for each of `more`."""
    ours = {"run": site.run, **more}
    tags = {f"darkroom:{name}": value for name, value in ours.items() if value}
    return [Tag(Key=key, Value=value) for key, value in {**tags, **site.config.tags}.items()]


def take_over(arn: str, *, site: Site, clients: Clients) -> None:
    """Tag a job that an earlier run left running with this run, which waits for it now.

    So that stopping this run, or removing what it left, finds the job.

    Raises:
        botocore.exceptions.ClientError: AWS refuses.
    """
    if site.run:
        tag = Tag(Key="darkroom:run", Value=site.run)
        clients.sagemaker.add_tags(ResourceArn=arn, Tags=[tag])


def _work(
    dataset: Dataset, *, hyperparameters: Hyperparameters, recording: RecordingConfig, site: Site
) -> dict[str, object]:
    machines = {"instance_type", "instance_count", "distribution"}
    return {
        "data": dataset.fingerprint,
        "hyperparameters": hyperparameters.model_dump(),
        "recording": recording.model_dump(),
        "machines": site.config.training.model_dump(include=machines),
        "fresh": site.fresh,
    }


def _digest(kind: Kind, content: dict[str, object]) -> str:
    text = json.dumps([kind, content], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[: _DIGITS[kind]]
