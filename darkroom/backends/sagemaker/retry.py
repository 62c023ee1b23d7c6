"""Wait for AWS with bounded back-off, through throttling, resets and expired credentials."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias, TypeVar

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    HTTPClientError,
)

from darkroom.backends.sagemaker.session import THROTTLED, Clients, explained, is_missing
from darkroom.backends.storage.access import EXPIRED, error_code
from darkroom.base.errors import DarkroomError

T = TypeVar("T")
Pause: TypeAlias = Callable[[float], None]
"""Waits so many seconds."""
sleep: Pause = time.sleep

MIN_SECONDS = 1.0
MAX_SECONDS = 15.0
_GROWTH = 1.3
GIVE_UP_SECONDS = 600.0
"""Of nothing but failures while a job runs: a laptop slept, a log-in has to be renewed."""
FIRST_CONTACT_SECONDS = 30.0
"""The same before anything runs, when a wrong address or log-in is more likely."""
_PASSING_CODES = THROTTLED | {
    "InternalFailure",
    "InternalServerError",
    "InternalServerException",
    "ModelNotReadyException",  # of a serverless endpoint that is waking up
    "RequestTimeout",
    "ServiceUnavailable",
    "ServiceUnavailableException",
}


class Backoff:
    """Pauses that grow while there is no news, up to a bound."""

    def __init__(self, pause: Pause = sleep) -> None:
        self._pause, self._seconds = pause, MIN_SECONDS
        self.waited = 0.0
        """Seconds since the last news."""

    def news(self) -> None:
        """Something happened: look again soon."""
        self._seconds, self.waited = MIN_SECONDS, 0.0

    def wait(self) -> None:
        """Pause, longer than the last time."""
        self._pause(self._seconds)
        self.waited += self._seconds
        self._seconds = min(MAX_SECONDS, self._seconds * _GROWTH)


class Retrier:
    """Asks AWS again where an answer may come later, and gives up after a bounded time."""

    def __init__(
        self,
        clients: Clients,
        *,
        what: str,
        pause: Pause = sleep,
        give_up_seconds: float = GIVE_UP_SECONDS,
        may_appear: bool = False,
    ) -> None:
        """Ask with these clients.

        Args:
            what: for errors, such as "endpoint 'x'".
            may_appear: what is asked for was just created, and may not be seen everywhere yet.
        """
        self._clients, self._what, self._pause = clients, what, pause
        self._give_up_seconds, self._may_appear = give_up_seconds, may_appear

    def ask(self, question: Callable[[Clients], T]) -> T:
        """The answer, however often it has to be asked for.

        Args:
            question: asks through the clients it is given; they may be new each time,
                since expired credentials are read anew.

        Raises:
            UserError, DarkroomError: not a passing failure, or one that would not pass.
        """
        backoff = Backoff(self._pause)
        while True:
            try:
                return question(self._clients)
            except (ClientError, BotoCoreError) as error:
                self._bear(error, waited=backoff.waited)
            backoff.wait()

    def _bear(self, error: ClientError | BotoCoreError, *, waited: float) -> None:
        """Prepare for another attempt, or give up."""
        missing = self._may_appear and isinstance(error, ClientError) and is_missing(error)
        give_up_seconds = FIRST_CONTACT_SECONDS if missing else self._give_up_seconds
        if not (missing or is_passing(error)):
            raise explained(error, what=self._what) from error
        if waited >= give_up_seconds:
            problem = explained(error, what=self._what)
            raise type(problem)(
                f"{problem} It was asked for {waited:.0f} s. What runs on AWS goes on: "
                "the same command finds it again."
            ) from error
        if is_expired(error):
            self._clients.renew()


def wait_for(
    look: Callable[[Clients], T],
    *,
    until: Callable[[T], bool],
    clients: Clients,
    what: str,
    on_look: Callable[[T], None] | None = None,
    timeout_seconds: float | None = None,
    pause: Pause = sleep,
) -> T:
    """Look until what is seen will do, at growing intervals; a change makes them short again.

    Args:
        look: such as a Describe call.
        what: for errors, such as "endpoint 'x'".
        on_look: called with everything that differs from what was seen before.
        timeout_seconds: of waiting altogether; None: no limit.

    Raises:
        DarkroomError: timed out, or AWS could not be asked for ten minutes.
    """
    patient, backoff = Retrier(clients, what=what, pause=pause), Backoff(pause)
    waited, last = 0.0, None
    while True:
        seen = patient.ask(look)
        if seen != last:
            backoff.news()
            if on_look:
                on_look(seen)
        if until(seen):
            return seen
        if timeout_seconds is not None and waited >= timeout_seconds:
            raise DarkroomError(
                f"{what}: not done after {waited:.0f} s. What runs on AWS goes on: the same "
                "command finds it again."
            )
        before, last = backoff.waited, seen
        backoff.wait()
        waited += backoff.waited - before


def is_expired(error: ClientError | BotoCoreError) -> bool:
    """Whether the credentials were good once: newer ones may be there."""
    if isinstance(error, ClientError):
        return error_code(error) in EXPIRED
    return isinstance(error, CredentialRetrievalError)


def is_passing(error: ClientError | BotoCoreError) -> bool:
    """Whether the same question may be answered later."""
    if is_expired(error):
        return True
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return error_code(error) in _PASSING_CODES or status >= 500
    return isinstance(error, EndpointConnectionError | ConnectTimeoutError | HTTPClientError)


class JobInterrupted(KeyboardInterrupt):
    """The user interrupted the following of a job, which goes on."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"{kind} job {name!r} goes on; the same command finds it again")
        self.kind, self.name = kind, name


@contextmanager
def interruptible(kind: str, name: str) -> Iterator[None]:
    """While a job is followed: an interruption tells which one, so that it can be stopped."""
    try:
        yield
    except JobInterrupted:
        raise
    except KeyboardInterrupt as error:
        raise JobInterrupted(kind, name) from error
