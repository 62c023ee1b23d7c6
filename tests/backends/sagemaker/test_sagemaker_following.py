"""Patience with AWS: what passes is borne, what does not is told, and nothing lasts for ever."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
)

from darkroom.backends.sagemaker.retry import (
    FIRST_CONTACT_SECONDS,
    MAX_SECONDS,
    MIN_SECONDS,
    Backoff,
    JobInterrupted,
    Retrier,
    interruptible,
    wait_for,
)
from darkroom.backends.sagemaker.session import Clients
from darkroom.base.errors import DarkroomError, UserError


class RenewableClients(Clients):
    def __init__(self) -> None:
        super().__init__("eu-west-1")
        self.renewals = 0

    def renew(self) -> None:
        self.renewals += 1
        super().renew()


def client_error(code: str, *, message: str = "no", status: int = 400) -> ClientError:
    return ClientError(
        {
            "Error": {"Code": code, "Message": message},
            "ResponseMetadata": {"HTTPStatusCode": status},
        },
        "DescribeTrainingJob",
    )


def answers(*given: object) -> Callable[[Any], object]:
    """A question that is answered so, one after the other; errors are raised."""
    left: Iterator[object] = iter(given)

    def ask(_: object) -> object:
        answer = next(left)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return ask


class Waits(list[float]):
    """Waits no time, and remembers how long it should have been."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def patient(waits: Waits, *, clients: Clients | None = None, **more: float) -> Retrier:
    return Retrier(clients or RenewableClients(), what="training job 'x'", pause=waits, **more)


@pytest.mark.parametrize(
    "error",
    [
        client_error("ThrottlingException"),
        client_error("SlowDown", status=503),
        client_error("InternalFailure", status=500),
        client_error("Anything", status=502),
        ConnectionClosedError(endpoint_url="https://aws"),
        ReadTimeoutError(endpoint_url="https://aws"),
        EndpointConnectionError(endpoint_url="https://aws"),
    ],
)
def test_what_passes_is_asked_again(error: ClientError | BotoCoreError) -> None:
    waits = Waits()
    assert patient(waits).ask(answers(error, error, "answer")) == "answer"
    assert len(waits) == 2


def test_what_was_just_created_may_be_seen_a_little_later() -> None:
    missing = client_error("ValidationException", message="Could not find model 'x'.")
    new = patient(Waits(), may_appear=True)
    assert new.ask(answers(missing, missing, "answer")) == "answer"
    with pytest.raises(UserError, match="Could not find"):
        patient(Waits()).ask(answers(missing, "answer"))
    waits = Waits()
    with pytest.raises(UserError, match="Could not find"):
        patient(waits, may_appear=True).ask(answers(*[missing] * 1000))
    assert FIRST_CONTACT_SECONDS <= sum(waits) <= FIRST_CONTACT_SECONDS + MAX_SECONDS


def test_expired_credentials_are_read_anew() -> None:
    clients = RenewableClients()
    question = answers(client_error("ExpiredTokenException"), "answer")
    assert patient(Waits(), clients=clients).ask(question) == "answer"
    assert clients.renewals == 1


def test_credentials_that_stay_expired_are_told_after_a_bounded_time() -> None:
    waits = Waits()
    expired = [client_error("ExpiredToken")] * 1000
    with pytest.raises(
        UserError, match=r"does not accept the credentials.*ExpiredToken.*Log in"
    ) as e:
        patient(waits, give_up_seconds=600).ask(answers(*expired))
    assert "the same command finds it again" in str(e.value)
    assert 600 <= sum(waits) <= 600 + MAX_SECONDS


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (
            client_error("AccessDeniedException", message="User u is not authorized to perform: x"),
            UserError,
            r"DescribeTrainingJob is not allowed: User u is not authorized",
        ),
        (
            client_error("ResourceLimitExceeded", message="ml.g5.xlarge is 0 Instances"),
            UserError,
            r"quota .*ml\.g5\.xlarge is 0 Instances\. Ask for more",
        ),
        (
            client_error("ValidationException", message="bad name"),
            UserError,
            "AWS refuses.*bad name",
        ),
        (client_error("ResourceNotFound"), UserError, "training job 'x' does not exist"),
        (client_error("Strange", message="odd"), DarkroomError, "failed: Strange: odd"),
        (NoCredentialsError(), UserError, "needs AWS credentials"),
    ],
)
def test_what_does_not_pass_is_told_at_once(
    error: Exception, kind: type[DarkroomError], message: str
) -> None:
    waits = Waits()
    with pytest.raises(DarkroomError, match=message) as told:
        patient(waits).ask(answers(error))
    assert type(told.value) is kind
    assert waits == []


def test_pauses_grow_to_a_bound_and_news_makes_them_short_again() -> None:
    waits = Waits()
    backoff = Backoff(waits)
    for _ in range(30):
        backoff.wait()
    assert waits[0] == MIN_SECONDS
    assert waits == sorted(waits)
    assert waits[-1] == MAX_SECONDS
    assert backoff.waited == sum(waits)
    backoff.news()
    backoff.wait()
    assert waits[-1] == MIN_SECONDS


def test_each_change_is_shown_once_while_waiting() -> None:
    seen: list[object] = []
    states = ("Creating", "Creating", client_error("Throttling"), "Creating", "InService")
    end = wait_for(
        answers(*states),
        until=lambda state: state == "InService",
        clients=RenewableClients(),
        what="endpoint 'e'",
        on_look=seen.append,
        pause=Waits(),
    )
    assert end == "InService"
    assert seen == ["Creating", "InService"]


def test_waiting_ends_with_its_limit() -> None:
    waits = Waits()
    with pytest.raises(DarkroomError, match=r"endpoint 'e': not done after \d+ s"):
        wait_for(
            answers(*range(1000)),
            until=lambda _: False,
            clients=RenewableClients(),
            what="endpoint 'e'",
            timeout_seconds=60,
            pause=waits,
        )
    assert 60 <= sum(waits) <= 60 + MAX_SECONDS


def test_an_interruption_names_the_job() -> None:
    with (
        pytest.raises(JobInterrupted, match=r"'j' goes on; the same command finds it") as caught,
        interruptible("tuning", "t"),
        interruptible("training", "j"),
    ):
        raise KeyboardInterrupt
    assert (caught.value.kind, caught.value.name) == ("training", "j")


def test_clients_are_made_once_and_anew_after_renewal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "first")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    clients = Clients("eu-west-1")
    first = clients.sagemaker
    assert clients.sagemaker is first
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "second")
    clients.renew()
    assert clients.sagemaker is not first
    assert clients.sagemaker.meta.region_name == "eu-west-1"
    assert clients.pricing.meta.region_name == "us-east-1"


def test_a_missing_region_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"SageMaker needs a region: set AWS_REGION"):
        _ = Clients().sagemaker
