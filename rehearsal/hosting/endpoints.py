"""An endpoint: what is kept of it, how it is described, how it comes up and goes."""

import random
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from typing import Any

from rehearsal.emulator.errors import AwsError, invalid, own_mistake
from rehearsal.emulator.state import State, now
from rehearsal.hosting.models import EndpointConfig, endpoint_config_named
from rehearsal.hosting.servers import StartupError
from rehearsal.hosting.variants import Fleet, start_fleet

IN_PROGRESS = ("Creating", "Updating", "RollingBack", "SystemUpdating", "Deleting")


@dataclass
class Endpoint:
    """What CreateEndpoint made; changed only while `state.lock` is held."""

    name: str
    arn: str
    config: EndpointConfig
    status: str = "Creating"
    failure: str = ""
    created: datetime = field(default_factory=now)
    modified: datetime = field(default_factory=now)
    fleet: Fleet | None = None
    """What serves."""
    incoming: Fleet | None = None
    """What an update is starting, and gives `share` of the traffic to."""
    share: Fraction = Fraction(0)
    deployment: Mapping[str, Any] = field(default_factory=dict)
    """LastDeploymentConfig."""
    in_service_since: datetime | None = None
    ended: datetime | None = None

    def change(self, status: str, *, failure: str = "") -> None:
        """Take another status."""
        self.status, self.failure, self.modified = status, failure, now()

    def choose_fleet(self) -> Fleet:
        """The fleet that answers the next request. Raises AwsError where none is in service."""
        serving = self.status in ("InService", "Updating", "RollingBack", "UpdateRollbackFailed")
        if self.fleet is None or not serving:
            raise not_in_service(self.name, arn=self.arn)
        if self.incoming is not None and random.random() < self.share:  # noqa: S311
            return self.incoming
        return self.fleet

    def description(self) -> dict[str, Any]:
        """The answer of DescribeEndpoint."""
        described: dict[str, Any] = self.summary() | {"EndpointConfigName": self.config.name}
        if self.fleet is not None:
            described["ProductionVariants"] = [each.described() for each in self.fleet.variants]
        if self.config.capture:
            described["DataCaptureConfig"] = _capture_summary(self.config.capture)
        if self.config.request.get("AsyncInferenceConfig"):
            described["AsyncInferenceConfig"] = self.config.request["AsyncInferenceConfig"]
        if self.deployment:
            described["LastDeploymentConfig"] = self.deployment
        if self.incoming is not None:
            described["PendingDeploymentSummary"] = _pending(self.incoming, since=self.modified)
        if self.failure:
            described["FailureReason"] = self.failure
        return described

    def summary(self) -> dict[str, Any]:
        """Its entry in ListEndpoints."""
        return {
            "EndpointName": self.name,
            "EndpointArn": self.arn,
            "EndpointStatus": self.status,
            "CreationTime": self.created,
            "LastModifiedTime": self.modified,
        }


@dataclass(frozen=True)
class DeletedEndpoint:
    """What is remembered of it for the report."""

    endpoint: Endpoint
    tags: dict[str, str]


def endpoint_named(name: str, *, state: State) -> Endpoint:
    """Raises AwsError where there is none."""
    endpoint = state.kept(Endpoint).get(name)
    if endpoint is None:
        raise invalid(f'Could not find endpoint "{state.arn("endpoint", name)}".')
    return endpoint


def not_in_service(name: str, *, arn: str) -> AwsError:
    """What the runtime answers for endpoints that cannot be invoked."""
    account = arn.split(":")[4]
    return AwsError("ValidationError", f"Endpoint {name} of account {account} not found.")


def create_endpoint(name: str, *, config_name: str, state: State) -> Endpoint:
    """Keep a new endpoint, and start its fleet beside the requests. Raises AwsError."""
    arn = state.arn("endpoint", name)
    with state.lock:
        if name in state.kept(Endpoint):
            raise invalid(f'Cannot create already existing endpoint "{arn}".')
        config = endpoint_config_named(config_name, state=state)
        endpoint = Endpoint(name, arn=arn, config=config)
        state.kept(Endpoint)[name] = endpoint
    state.start(lambda: _come_up(endpoint, state=state), name=f"endpoint {name}")
    return endpoint


def delete_endpoint(endpoint: Endpoint, *, state: State) -> None:
    """Begin to end an endpoint and its processes. Raises AwsError while it is in progress."""
    with state.lock:
        refuse_in_progress(endpoint)
        endpoint.change("Deleting")
    state.start(lambda: _go(endpoint, state=state), name=f"end of {endpoint.name}")


def refuse_in_progress(endpoint: Endpoint) -> None:
    """Raises AwsError where the endpoint is being created, updated or deleted."""
    if endpoint.status in IN_PROGRESS:
        raise invalid(f'Cannot update in-progress endpoint "{endpoint.arn}".')


def refuse_failed(endpoint: Endpoint) -> None:
    """Raises AwsError where creation failed: then DeleteEndpoint is all that is left."""
    if endpoint.status == "Failed" or endpoint.fleet is None:
        raise invalid(f'Cannot update failed endpoint "{endpoint.arn}".')


def _come_up(endpoint: Endpoint, *, state: State) -> None:
    try:
        fleet = start_fleet(endpoint.config, endpoint=endpoint.name, state=state)
    except StartupError as error:
        with state.lock:
            endpoint.change("Failed", failure=str(error))
        return
    except Exception as error:
        with state.lock:
            endpoint.change("Failed", failure=own_mistake(error))
        raise
    with state.lock:
        endpoint.fleet = fleet
        endpoint.in_service_since = now()
        endpoint.change("InService")


def _go(endpoint: Endpoint, *, state: State) -> None:
    if endpoint.fleet is not None:
        endpoint.fleet.stop()
    with state.lock:
        state.kept(Endpoint).pop(endpoint.name, None)
        endpoint.change("Deleted")
        endpoint.ended = now()
        tags = dict(state.tags(endpoint.arn))
        state.forget_tags(endpoint.arn)
        state.kept(DeletedEndpoint)[uuid.uuid4().hex] = DeletedEndpoint(endpoint, tags=tags)


def _capture_summary(capture: Mapping[str, Any]) -> dict[str, Any]:
    enabled = capture.get("EnableCapture", True)
    return {
        "EnableCapture": enabled,
        "CaptureStatus": "Started" if enabled else "Stopped",
        "CurrentSamplingPercentage": capture["InitialSamplingPercentage"],
        "DestinationS3Uri": capture["DestinationS3Uri"],
        "KmsKeyId": capture.get("KmsKeyId", ""),
    }


def _pending(fleet: Fleet, *, since: datetime) -> dict[str, Any]:
    return {
        "EndpointConfigName": fleet.config.name,
        "StartTime": since,
        "ProductionVariants": [variant.described() for variant in fleet.variants],
    }
