"""The containers behind an endpoint configuration; requests are spread over them by weight."""

import random
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

from rehearsal.emulator.errors import AwsError, invalid
from rehearsal.emulator.state import State
from rehearsal.hosting.models import EndpointConfig, Model, model_named
from rehearsal.hosting.servers import ModelServer, StartupError
from rehearsal.jobs.container import is_sandboxed
from rehearsal.jobs.logs import LogStream

# --- packages ---
# Models of the registry as containers: ModelPackageName instead of an image and data.

_FIELDS = ("Image", "ModelDataUrl", "ModelDataSource", "Environment", "ContainerHostname")


def container_of_package(definition: Mapping[str, Any], *, state: State) -> Mapping[str, Any]:
    """The definition with the package's image and data in it; unchanged without a package.

    Raises AwsError where there is no such package.
    """
    package = definition.get("ModelPackageName")
    if package is None:
        return definition
    try:
        described = state.clients["sagemaker"].describe_model_package(ModelPackageName=package)
    except ClientError as error:
        raise invalid(f"Could not find model package {package!r}: {error}") from error
    containers = described.get("InferenceSpecification", {}).get("Containers", [])
    if not containers:
        raise invalid(f"Model package {package!r} has no InferenceSpecification.")
    given = {name: containers[0][name] for name in _FIELDS if name in containers[0]}
    environment = {**given.get("Environment", {}), **definition.get("Environment", {})}
    return {**given, **definition, "Environment": environment}


# --- variants ---


@dataclass
class Variant:
    """A production variant that serves; one process a container stands for all instances."""

    definition: Mapping[str, Any]
    containers: list[ModelServer]
    is_serial: bool
    """Several containers: each gets the answer of the one before; else one is named."""
    weight: float = field(init=False)
    instances: int = field(init=False)
    serverless: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.weight = self.definition.get("InitialVariantWeight", 1.0)
        self.instances = self.definition.get("InitialInstanceCount", 1)
        self.serverless = dict(self.definition.get("ServerlessConfig", {}))

    @property
    def name(self) -> str:
        return str(self.definition["VariantName"])

    def described(self) -> dict[str, Any]:
        """Its ProductionVariantSummary."""
        common = {
            "VariantName": self.name,
            "DeployedImages": [container.image_description() for container in self.containers],
            "CurrentWeight": self.weight,
            "DesiredWeight": self.weight,
            "CurrentInstanceCount": 0 if self.serverless else self.instances,
        }
        if self.serverless:
            settings = {"CurrentServerlessConfig": self.serverless}
            return common | settings | {"DesiredServerlessConfig": self.serverless}
        return common | {"DesiredInstanceCount": self.instances}

    def chain(self, hostname: str) -> list[ModelServer]:
        """The containers that a request passes through. Raises AwsError."""
        if self.is_serial or len(self.containers) == 1:
            if hostname and not any(each.hostname == hostname for each in self.containers):
                raise _invalid(f"Container {hostname!r} is not one of variant {self.name!r}.")
            return self.containers
        for container in self.containers:
            if container.hostname == hostname:
                return [container]
        allowed = ", ".join(each.hostname for each in self.containers)
        raise _invalid(
            f"TargetContainerHostname {hostname!r} is not a container of variant "
            f"{self.name!r}, which is invoked in Direct mode. Allowed: {allowed}."
        )


@dataclass
class Fleet:
    """All variants of one endpoint configuration."""

    config: EndpointConfig
    variants: list[Variant] = field(default_factory=list)
    _idle: threading.Condition = field(default_factory=threading.Condition, repr=False)
    _requests: int = 0

    @property
    def instances(self) -> int:
        """Of all its variants, as AWS would have started them."""
        return sum(variant.instances for variant in self.variants)

    def choose(self, target: str) -> Variant:
        """The variant that was asked for, or one by weight. Raises AwsError."""
        if target:
            return self._named(target)
        weights = [variant.weight for variant in self.variants]
        if not sum(weights):
            raise _invalid("All variants of the endpoint have a weight of 0.")
        return random.choices(self.variants, weights)[0]  # noqa: S311

    def keep_settings_of(self, other: "Fleet", *, except_for: Sequence[str]) -> None:
        """RetainAllVariantProperties: instance counts and weights of variants of one name."""
        earlier = {variant.name: variant for variant in other.variants}
        for variant in self.variants:
            before = earlier.get(variant.name)
            if before and "DesiredInstanceCount" not in except_for:
                variant.instances = before.instances
            if before and "DesiredWeight" not in except_for:
                variant.weight = before.weight

    def enter(self) -> None:
        """A request has been sent its way."""
        with self._idle:
            self._requests += 1

    def leave(self) -> None:
        """A request is answered."""
        with self._idle:
            self._requests -= 1
            self._idle.notify_all()

    def drain(self, *, seconds: float) -> None:
        """Wait until all requests are answered, but no longer than this."""
        with self._idle:
            self._idle.wait_for(lambda: self._requests == 0, timeout=seconds)

    def stop(self) -> None:
        """End all processes."""
        for container in self.containers:
            container.stop()

    @property
    def containers(self) -> list[ModelServer]:
        """Of all variants."""
        return [container for variant in self.variants for container in variant.containers]

    def _named(self, target: str) -> Variant:
        for variant in self.variants:
            if variant.name == target:
                return variant
        raise _invalid(f"Variant {target} not found for Endpoint.")


def _invalid(message: str) -> AwsError:
    return AwsError("ValidationError", message)


# --- start of containers ---
# All containers of an endpoint configuration, started together, each waited for.

_SECONDS_BETWEEN_LOOKS = 0.1


def start_fleet(config: EndpointConfig, *, endpoint: str, state: State) -> Fleet:
    """Start what a configuration describes; all of it serves when this returns.

    Raises StartupError: nothing is left running then.
    """
    fleet = Fleet(config)
    try:
        for definition in config.variants:
            model = model_named(definition["ModelName"], state=state)
            fleet.variants.append(_variant(definition, model=model, endpoint=endpoint, state=state))
        _note_gaps(config, state=state)
        _hang(endpoint, fleet=fleet, state=state)
        for server in fleet.containers:
            server.start()
        for variant in fleet.variants:
            _wait_for(variant, state=state)
    except (StartupError, AwsError) as error:
        fleet.stop()
        raise StartupError(getattr(error, "message", str(error))) from error
    return fleet


def make_server(
    definition: Mapping[str, Any],
    *,
    model: Model,
    hostname: str,
    group: str,
    stream: str,
    state: State,
) -> ModelServer:
    """A container of a model that is not started yet; what it prints goes to CloudWatch."""
    # An image may come by way of a registered model.
    definition = container_of_package(definition, state=state)
    folder = state.settings.folder / "serving" / uuid.uuid4().hex[:12]
    log = LogStream(group=group, stream=stream, path=folder.with_suffix(".log"), state=state)
    isolated = bool(model.request.get("EnableNetworkIsolation"))
    return ModelServer(
        definition, hostname=hostname, folder=folder, log=log, isolated=isolated, state=state
    )


def hostname_of(definition: Mapping[str, Any], *, number: int, count: int) -> str:
    """The name by which AWS speaks of a container."""
    default = "primary" if count == 1 else f"container-{number}"
    return str(definition.get("ContainerHostname", default))


def _variant(
    definition: Mapping[str, Any], *, model: Model, endpoint: str, state: State
) -> Variant:
    instance = f"{definition['VariantName']}/i-{uuid.uuid4().hex[:17]}"
    count = len(model.containers)
    servers = []
    for number, container in enumerate(model.containers, 1):
        hostname = hostname_of(container, number=number, count=count)
        server = make_server(
            container,
            model=model,
            hostname=hostname,
            group=f"/aws/sagemaker/Endpoints/{endpoint}",
            stream=instance if count == 1 else f"{instance}/{hostname}",
            state=state,
        )
        servers.append(server)
    mode = model.request.get("InferenceExecutionConfig", {}).get("Mode", "Serial")
    return Variant(definition, containers=servers, is_serial=mode == "Serial")


def _hang(endpoint: str, *, fleet: Fleet, state: State) -> None:
    """Where a fault says so: nothing comes up until it is cleared, and then it fails."""
    if not state.faults.stuck_endpoint(endpoint):
        return
    while state.faults.is_stuck(endpoint) and not state.ending.wait(_SECONDS_BETWEEN_LOOKS):
        pass
    raise _unhealthy(fleet.variants[0], server=fleet.containers[0])


def _note_gaps(config: EndpointConfig, *, state: State) -> None:
    """Say what a configuration asks for and does not get here."""
    if any(variant.get("InitialInstanceCount", 1) > 1 for variant in config.variants):
        state.log.not_covered("several instances of a variant: one process stands for all")
    if config.request.get("AsyncInferenceConfig"):
        state.log.not_covered("asynchronous: the queue, and scaling by its length")
    models = [model_named(variant["ModelName"], state=state) for variant in config.variants]
    isolated = any(model.request.get("EnableNetworkIsolation") for model in models)
    if isolated and not is_sandboxed(state):
        state.log.not_covered("network isolation of serving containers")


def _unhealthy(variant: Variant, *, server: ModelServer) -> StartupError:
    return StartupError(
        f"The {server.hostname} container for production variant {variant.name} did not "
        "pass the ping health check. Please check CloudWatch logs for this endpoint."
    )


def _wait_for(variant: Variant, *, state: State) -> None:
    allowed = min(
        state.settings.startup_seconds,
        variant.definition.get("ContainerStartupHealthCheckTimeoutInSeconds", 3600),
    )
    end = time.monotonic() + allowed
    for server in variant.containers:
        if not server.wait_until_healthy(seconds=max(end - time.monotonic(), 0)):
            raise _unhealthy(variant, server=server)
