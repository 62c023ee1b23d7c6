"""Which attempt at some work is followed, and when there is a new one."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from botocore.exceptions import ClientError

from darkroom.backends.sagemaker.jobs.attempts import start_or_find
from darkroom.backends.sagemaker.resources import JobIdentity
from darkroom.backends.sagemaker.session import Clients
from darkroom.base.errors import UserError

IDENTITY = JobIdentity("training", "abc")
FIRST, SECOND, THIRD = (IDENTITY.name(number) for number in (1, 2, 3))


@dataclass
class Account:
    """Jobs by name, each with the states that it shows one after the other."""

    jobs: dict[str, list[str]] = field(default_factory=dict)
    created: list[str] = field(default_factory=list)
    taken_over: list[str] = field(default_factory=list)
    before_creation: Callable[[str], None] = lambda name: None

    def status(self, clients: Clients, name: str) -> str:
        if name not in self.jobs:
            raise error("ValidationException", "Requested resource not found.")
        states = self.jobs[name]
        return states.pop(0) if len(states) > 1 else states[0]

    def create(self, clients: Clients, name: str) -> None:
        self.before_creation(name)
        if name in self.jobs:
            raise error("ResourceInUse", "Job name must be unique")
        self.jobs[name] = ["InProgress"]
        self.created.append(name)

    def find(self) -> str:
        return start_or_find(
            IDENTITY,
            status_of=self.status,
            create=self.create,
            take_over=lambda _, name: self.taken_over.append(name),
            clients=Clients("eu-west-1"),
            pause=lambda _: None,
        )


def error(code: str, message: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "CreateTrainingJob")


def test_the_first_attempt_is_made_where_there_is_none() -> None:
    account = Account()
    assert account.find() == FIRST
    assert account.created == [FIRST]


@pytest.mark.parametrize("state", ["InProgress", "Completed"])
def test_a_job_that_runs_or_is_complete_is_taken(state: str) -> None:
    account = Account({FIRST: ["Failed"], SECOND: [state]})
    assert account.find() == SECOND
    assert account.created == []
    assert account.taken_over == ([SECOND] if state == "InProgress" else [])


def test_failed_and_stopped_attempts_are_followed_by_another() -> None:
    account = Account({FIRST: ["Failed"], SECOND: ["Stopped"]})
    assert account.find() == THIRD


def test_a_job_that_is_being_stopped_is_waited_for() -> None:
    account = Account({FIRST: ["Stopping", "Stopping", "Stopped"]})
    assert account.find() == SECOND


def test_of_two_that_start_at_once_one_creates_and_both_follow() -> None:
    account = Account()
    account.before_creation = lambda name: account.jobs.update({name: ["InProgress"]})
    assert account.find() == FIRST
    assert account.created == []


def test_a_refusal_is_told() -> None:
    def refuse(name: str) -> None:
        raise error("ValidationException", "RoleArn: cannot be assumed")

    with pytest.raises(UserError, match=f"training job '{FIRST}': AWS refuses.*cannot be assumed"):
        Account(before_creation=refuse).find()
