"""What SageMaker says about an endpoint, waiting for it, and why it failed."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from botocore.exceptions import ClientError

from darkroom.backends.endpoint import EndpointError
from darkroom.backends.sagemaker.jobs.logs import ENDPOINTS, last_lines
from darkroom.backends.sagemaker.retry import Pause, Retrier, interruptible, sleep, wait_for
from darkroom.backends.sagemaker.session import Clients, is_missing
from darkroom.base.progress import SILENT, Progress

ACCEPTED = "darkroom:accepted"
"""Tag of an endpoint: the configuration whose predictions were checked last."""

_ON_THE_WAY = frozenset({"Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting"})
_MAX_SECONDS = 9 * 3600.0
"""Of an update: AWS gives it up to eight hours."""


@dataclass(frozen=True)
class EndpointState:
    """One look at an endpoint."""

    status: str
    configuration: str
    """The one that serves; while an endpoint is updated, the old one."""
    reason: str
    """Why the last change failed; empty where it did not."""
    arn: str
    created: datetime

    @property
    def is_steady(self) -> bool:
        """Whether nothing changes by itself."""
        return self.status not in _ON_THE_WAY

    @property
    def serves(self) -> bool:
        """Whether it answers."""
        return self.status == "InService"


def describe(name: str, *, clients: Clients) -> EndpointState | None:
    """The endpoint as it is; None where there is none."""
    try:
        found = clients.sagemaker.describe_endpoint(EndpointName=name)
    except ClientError as error:
        if is_missing(error):
            return None
        raise
    return EndpointState(
        status=found["EndpointStatus"],
        configuration=found.get("EndpointConfigName", ""),
        reason=found.get("FailureReason", ""),
        arn=found["EndpointArn"],
        created=found["CreationTime"],
    )


def poll_endpoint(name: str, *, clients: Clients, pause: Pause = sleep) -> EndpointState | None:
    """As `describe`, patiently.

    Raises:
        UserError, DarkroomError: AWS refuses, or cannot be asked.
    """
    patient = Retrier(clients, what=f"endpoint {name!r}", pause=pause)
    return patient.ask(lambda renewed: describe(name, clients=renewed))


def wait_until_steady(
    name: str,
    *,
    clients: Clients,
    progress: Progress = SILENT,
    pause: Pause = sleep,
    timeout_seconds: float | None = None,
) -> EndpointState | None:
    """Follow an endpoint until it stays as it is, or is gone (None).

    Args:
        timeout_seconds: of waiting; None: as long as the longest update takes.

    Raises:
        DarkroomError: it still changes.
        JobInterrupted: the user does not want to wait; the endpoint goes on.
    """
    with progress.task(f"Endpoint {name}") as task, interruptible("endpoint", name):
        return wait_for(
            lambda renewed: describe(name, clients=renewed),
            until=lambda state: state is None or state.is_steady,
            clients=clients,
            what=f"endpoint {name!r}",
            on_look=lambda state: task.advance(0, detail=state.status if state else "Deleted"),
            timeout_seconds=timeout_seconds or _MAX_SECONDS,
            pause=pause,
        )


def describe_configuration(name: str, *, clients: Clients) -> dict[str, Any]:
    """What SageMaker says of an endpoint configuration; empty where it is gone."""
    try:
        return dict(clients.sagemaker.describe_endpoint_config(EndpointConfigName=name))
    except ClientError as error:
        if not is_missing(error):
            raise
        return {}


def first_variant(configuration: str, *, clients: Clients) -> dict[str, str]:
    """The texts of an endpoint configuration's first variant; empty where it is gone."""
    found = describe_configuration(configuration, clients=clients)
    variants = found.get("ProductionVariants", [{}])
    return {key: str(value) for key, value in variants[0].items()}


def failure(name: str, *, what: str, reason: str, clients: Clients) -> EndpointError:
    """The error to raise, with SageMaker's reason and the container's last words."""
    return EndpointError(
        f"endpoint {name!r} {what}: {reason or 'SageMaker gives no reason'}\n"
        f"{last_lines(ENDPOINTS + name, clients=clients)}"
    )
