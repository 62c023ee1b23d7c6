"""Find the attempt at some work that runs or has succeeded, or start one; the inputs of a job."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

from botocore.exceptions import ClientError

from darkroom.backends.sagemaker.resources import JobIdentity
from darkroom.backends.sagemaker.retry import FIRST_CONTACT_SECONDS, Pause, Retrier, sleep, wait_for
from darkroom.backends.sagemaker.session import Clients, SageMakerContext, is_missing, is_taken
from darkroom.backends.storage.datasets import publish
from darkroom.backends.storage.weights import NAMED, local_weights, publish_weights
from darkroom.base.files import workspace
from darkroom.base.progress import SILENT, Progress
from darkroom.config import Hyperparameters
from darkroom.data.dataset import Dataset

# --- job inputs ---
# What jobs read from S3: the published data set, and initial weights of the user's.


@dataclass(frozen=True)
class JobInputs:
    """What a job is started with; all of it lies on S3."""

    dataset: Dataset
    hyperparameters: Hyperparameters
    """Their weights are 'imagenet', 'none' or an s3:// URI that tells the content."""

    @property
    def weights(self) -> str:
        """The prefix of the initial weights; empty: the job reads none from S3."""
        weights = self.hyperparameters.weights
        return "" if weights in NAMED else weights


def bring_inputs(
    dataset: Dataset,
    *,
    hyperparameters: Hyperparameters,
    site: SageMakerContext,
    clients: Clients,
    progress: Progress = SILENT,
) -> JobInputs:
    """Publish what is not on S3 yet.

    Raises:
        UserError, DarkroomError: files are gone, S3 refuses or cannot be reached.
    """
    if not dataset.shards:
        dataset = publish(
            dataset,
            root=site.root,
            kms_key=site.config.kms_key,
            client=clients.s3,
            progress=progress,
        )
    weights = hyperparameters.weights
    if weights not in NAMED:
        path = Path(local_weights(weights, store=workspace() / "data", progress=progress))
        uri = publish_weights(
            path.expanduser(),
            root=site.root.rstrip("/"),
            kms_key=site.config.kms_key,
            client=clients.s3,
            progress=progress,
        )
        hyperparameters = hyperparameters.replace(weights=uri)
    return JobInputs(dataset, hyperparameters)


# --- attempts ---

StatusOf: TypeAlias = Callable[[Clients, str], str]
"""The status of a job by its name; raises ClientError where there is none."""
Create: TypeAlias = Callable[[Clients, str], object]
"""Creates a job of that name."""
TakeOver: TypeAlias = Callable[[Clients, str], object]
"""Makes a job that an earlier run started, and that still runs, one of this run's."""

_IN_WORDS = {"InProgress": "it is followed", "Completed": "its result is used"}


def start_or_find(
    identity: JobIdentity,
    *,
    status_of: StatusOf,
    create: Create,
    take_over: TakeOver,
    clients: Clients,
    progress: Progress = SILENT,
    pause: Pause = sleep,
) -> str:
    """The name of the attempt to follow: one that runs or is complete, else a new one.

    Attempts that failed or were stopped are passed over. Two that start at once follow the
    same job: SageMaker admits a name only once.

    Raises:
        UserError, DarkroomError: AWS refuses, or cannot be reached.
    """
    for name in identity.names():
        what = f"{identity.kind} job {name!r}"
        patient = Retrier(clients, what=what, pause=pause, give_up_seconds=FIRST_CONTACT_SECONDS)
        status = patient.ask(partial(_status, name=name, status_of=status_of))
        if status == "Stopping":
            status = _end(name, status_of=status_of, clients=clients, what=what, pause=pause)
        if status is None:
            new = patient.ask(partial(_create, name=name, create=create))
            progress.message(f"{what} {'is started' if new else 'was started elsewhere'}")
            return name
        if status == "InProgress":
            patient.ask(partial(_take_over, name=name, take_over=take_over))
        if status in ("InProgress", "Completed"):
            progress.message(f"{what} was started before: {_IN_WORDS[status]}")
            return name
    raise AssertionError("there is always another attempt")


def _status(clients: Clients, *, name: str, status_of: StatusOf) -> str | None:
    try:
        return status_of(clients, name)
    except ClientError as error:
        if is_missing(error):
            return None
        raise


def _create(clients: Clients, *, name: str, create: Create) -> bool:
    """Create a job; False: it is there, by another start or an answer that got lost."""
    try:
        create(clients, name)
    except ClientError as error:
        if is_taken(error):
            return False
        raise
    return True


def _take_over(clients: Clients, *, name: str, take_over: TakeOver) -> None:
    take_over(clients, name)


def _end(name: str, *, status_of: StatusOf, clients: Clients, what: str, pause: Pause) -> str:
    return wait_for(
        lambda c: status_of(c, name),
        until=lambda status: status != "Stopping",
        clients=clients,
        what=what,
        pause=pause,
    )
