"""All containers of an endpoint configuration, started together, each waited for."""

import time
import uuid
from collections.abc import Mapping
from typing import Any

from rehearsal.emulator.errors import AwsError
from rehearsal.emulator.state import State
from rehearsal.hosting.fleets import Fleet, Variant
from rehearsal.hosting.models import EndpointConfig, Model, model_named
from rehearsal.hosting.packages import container_of_package
from rehearsal.hosting.servers import ModelServer, StartupError
from rehearsal.jobs.container import is_sandboxed
from rehearsal.jobs.logs import LogStream

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
