"""Deploy: the `serve` program with the registered model."""

from typing import Annotated

from zenml import step

from darkroom.backends.endpoint import Endpoint
from darkroom.backends.local_endpoint import start_endpoint
from darkroom.config import DeploymentConfig
from darkroom.model.bundle import Bundle
from darkroom.tracking.registry import RegisteredModel


@step(enable_cache=False, experiment_tracker=True)
def deploy_model(
    bundle: Bundle,
    registered: RegisteredModel,
    deployment: DeploymentConfig,
    keep_endpoint: bool,
) -> Annotated[Endpoint, "endpoint"]:
    """Start an endpoint on a free loopback port and wait until it answers /ping.

    Args:
        bundle: the packed model.
        registered: its version in the registry.
        deployment: how long the start may take.
        keep_endpoint: whether the endpoint outlives this run.
    """
    return start_endpoint(
        bundle.folder, timeout_seconds=deployment.start_timeout_seconds, keep=keep_endpoint
    )
