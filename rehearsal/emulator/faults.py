"""What is made to go wrong, on demand.

Set by `--fault NAME[:key=value,…]` or by POST /_rehearsal/faults with {"name": NAME, …};
GET shows them with what is left, DELETE clears them. Names with * and ? are patterns.

    throttling           calls are refused with ThrottlingException
    server_error         calls fail with status 500
    lost_connection      calls are answered by a closed connection
    expired_credentials  calls are refused with ExpiredTokenException
    slow_s3              requests to S3 take longer
    capacity             jobs fail with CapacityError
    spot_interruption    spot jobs lose their machine
    dead_container       containers end before their program starts
    hanging_endpoint     endpoints stay silent
    stuck_endpoint       endpoints stay Creating or Updating, and fail once the fault is cleared

The emulator's own calls are spared, but for slow_s3: it also slows what AWS would do.
"""

import random
import threading
import time
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from darkroom.base.values import did_you_mean
from rehearsal.emulator.calls import Call
from rehearsal.emulator.errors import AwsError, LostConnection

Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0)]


class _Fault(BaseModel):
    model_config = ConfigDict(extra="forbid")

    times: Annotated[int, Field(ge=1)] | None = None
    """It strikes so often; None: until it is cleared."""


class _CallFault(_Fault):
    services: str = "*"
    """Of the services that match, such as "s3" or "sagemaker"."""
    operations: str = "*"
    """Of the operations that match, such as "Describe*"; S3's are "GET object" and so on."""
    share: Share = 1
    """Of these calls."""


class Throttling(_CallFault):
    """Calls are refused with ThrottlingException; S3's with SlowDown."""

    name: Literal["throttling"]


class ServerError(_CallFault):
    """Calls fail with status 500."""

    name: Literal["server_error"]


class LostConnectionFault(_CallFault):
    """Calls are answered by a closed connection."""

    name: Literal["lost_connection"]


class ExpiredCredentials(_CallFault):
    """Calls are refused as if the credentials had expired."""

    name: Literal["expired_credentials"]


class SlowS3(_CallFault):
    """Requests to S3 take longer."""

    name: Literal["slow_s3"]
    seconds: Seconds = 0.5


class _JobFault(_Fault):
    jobs: str = "*"
    """Names of the jobs that it meets."""
    times: Annotated[int, Field(ge=1)] | None = 1


class Capacity(_JobFault):
    """There are no machines for training jobs."""

    name: Literal["capacity"]


class SpotInterruption(_JobFault):
    """Spot machines are taken away."""

    name: Literal["spot_interruption"]
    after_seconds: Seconds = 0
    """Since the attempt began."""


class DeadContainer(_JobFault):
    """Containers end with exit code 1, before their program starts."""

    name: Literal["dead_container"]


class HangingEndpoint(_Fault):
    """Endpoints take requests and answer late."""

    name: Literal["hanging_endpoint"]
    endpoints: str = "*"
    seconds: Seconds = 65
    """SageMaker itself waits for a model for 60 seconds."""


class StuckEndpoint(_Fault):
    """Endpoints do not come up: they stay Creating (Updating) until the fault is cleared."""

    name: Literal["stuck_endpoint"]
    endpoints: str = "*"


Fault = Annotated[
    Throttling
    | ServerError
    | LostConnectionFault
    | ExpiredCredentials
    | SlowS3
    | Capacity
    | SpotInterruption
    | DeadContainer
    | HangingEndpoint
    | StuckEndpoint,
    Field(discriminator="name"),
]
_ANY: TypeAdapter[Any] = TypeAdapter(Fault)


def parse_fault(content: object) -> _Fault:
    """A fault from JSON, or from the command line's NAME[:key=value,…].

    Raises:
        ValueError: with all that is wrong, and what is allowed.
    """
    if isinstance(content, str):
        name, _, rest = content.partition(":")
        pairs = (pair.partition("=") for pair in rest.split(",") if pair)
        content = {"name": name, **{key: value for key, _, value in pairs}}
    try:
        fault: _Fault = _ANY.validate_python(content)
    except ValidationError as error:
        raise ValueError(
            f"{_named(content)!r}: {'; '.join(map(_worded, error.errors()))}"
        ) from error
    return fault


def _named(content: object) -> object:
    return content.get("name") if isinstance(content, dict) else content


def _worded(problem: ErrorDetails) -> str:
    """What is wrong, and what is allowed, in words for who wrote it."""
    if problem["type"].startswith("union_tag"):
        names = problem.get("ctx", {}).get("expected_tags", "").replace("'", "")
        hint = did_you_mean(str(_named(problem["input"])), among=names.split(", "))
        return f"there is no such fault; {hint}there are {names}"
    key = ".".join(map(str, problem["loc"][1:])) or "it"
    if problem["type"] == "extra_forbidden":
        return f"it takes no {key!r}"
    return f"{key} is {problem['input']!r}: {problem['msg']}"


class Faults:
    """The faults that are set, and what they have struck."""

    def __init__(self, faults: Sequence[_Fault] = ()) -> None:
        self._lock = threading.Lock()
        self._set = list(faults)
        self.applied: list[dict[str, Any]] = []
        """What was struck, for the report."""

    def add(self, fault: _Fault) -> None:
        """Set a fault."""
        with self._lock:
            self._set.append(fault)

    def clear(self) -> None:
        """Set none."""
        with self._lock:
            self._set.clear()

    def shown(self) -> list[dict[str, Any]]:
        """The faults as JSON, with the times that are left."""
        with self._lock:
            return [fault.model_dump() for fault in self._set]

    def strike(self, call: Call) -> None:
        """Fail or delay this call, where a fault says so.

        Raises:
            AwsError: what the caller gets instead of an answer.
            LostConnection: it gets none.
        """
        if not self._set or call.path.startswith("/_rehearsal/"):
            return
        slow = self._take(SlowS3, call=call) if call.service == "s3" else None
        if slow:
            time.sleep(slow.seconds)
        if call.internal:
            return
        if self._take(LostConnectionFault, call=call):
            raise LostConnection
        if self._take(ExpiredCredentials, call=call):
            raise _expired(call)
        if self._take(Throttling, call=call):
            raise _throttled(call)
        if self._take(ServerError, call=call):
            raise AwsError("InternalFailure", "a fault of the rehearsal", status=500)

    def capacity(self, job: str) -> str:
        """Why a training job gets no machines; empty where it does."""
        if not self._take(Capacity, job=job):
            return ""
        return (
            "CapacityError: Unable to provision requested ML compute capacity. Please retry "
            "using a different ML instance type."
        )

    def dead_container(self, job: str) -> bool:
        """Whether a container dies before its program starts."""
        return self._take(DeadContainer, job=job) is not None

    def spot_interruption(self, job: str, *, seconds: float) -> bool:
        """Whether a spot machine is taken away now, so long after the attempt began."""
        return self._take(SpotInterruption, job=job, seconds=seconds) is not None

    def hanging_endpoint(self, endpoint: str) -> float:
        """For how many seconds an endpoint is silent before it answers a request."""
        fault = self._take(HangingEndpoint, endpoint=endpoint)
        return fault.seconds if fault else 0

    def stuck_endpoint(self, endpoint: str) -> bool:
        """Whether an endpoint that is started now does not come up."""
        return self._take(StuckEndpoint, endpoint=endpoint) is not None

    def is_stuck(self, endpoint: str) -> bool:
        """Whether a fault still holds an endpoint back."""
        with self._lock:
            faults = [fault for fault in self._set if isinstance(fault, StuckEndpoint)]
        return any(fnmatchcase(endpoint, fault.endpoints) for fault in faults)

    def _take(self, kind: type[Any], **event: Any) -> Any:  # noqa: ANN401
        """The first fault of a kind that strikes here; its times are counted."""
        with self._lock:
            for fault in self._set:
                if isinstance(fault, kind) and _strikes(fault, **event):
                    self._count(fault)
                    self.applied.append({"name": fault.name, **_told(event)})
                    return fault
        return None

    def _count(self, fault: _Fault) -> None:
        if fault.times is not None:
            fault.times -= 1
            if fault.times == 0:
                self._set.remove(fault)


def _strikes(
    fault: Any,  # noqa: ANN401
    *,
    call: Call | None = None,
    job: str = "",
    endpoint: str = "",
    seconds: float = 0,
) -> bool:
    if call is not None:
        named = fnmatchcase(call.service, fault.services)
        named = named and fnmatchcase(call.operation, fault.operations)
        return named and (fault.share >= 1 or random.random() < fault.share)  # noqa: S311
    if isinstance(fault, HangingEndpoint | StuckEndpoint):
        return fnmatchcase(endpoint, fault.endpoints)
    return fnmatchcase(job, fault.jobs) and seconds >= getattr(fault, "after_seconds", 0)


def _told(event: dict[str, Any]) -> dict[str, Any]:
    call = event.pop("call", None)
    return {"service": call.service, "operation": call.operation} if call else event


def _expired(call: Call) -> AwsError:
    code = "ExpiredTokenException" if call.target else "ExpiredToken"
    return AwsError(code, "The security token included in the request is expired")


def _throttled(call: Call) -> AwsError:
    if call.service == "s3":
        return AwsError("SlowDown", "Please reduce your request rate.", status=503)
    code = "ThrottlingException" if call.target else "Throttling"
    return AwsError(code, "Rate exceeded")
