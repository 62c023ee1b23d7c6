"""The attempt at some work that runs or has succeeded; a new one where there is none."""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from botocore.exceptions import ClientError

from darkroom.backends.sagemaker.aws_errors import is_missing, is_taken
from darkroom.backends.sagemaker.clients import Clients
from darkroom.backends.sagemaker.following import (
    FIRST_CONTACT_SECONDS,
    Patient,
    Pause,
    sleep,
    wait_for,
)
from darkroom.backends.sagemaker.identity import JobIdentity
from darkroom.progress import SILENT, Progress

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
        patient = Patient(clients, what=what, pause=pause, give_up_seconds=FIRST_CONTACT_SECONDS)
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
