"""Deploy: an endpoint with the registered model."""

from typing import Annotated

from zenml import step

from darkroom.backends.endpoint import Endpoint
from darkroom.base.progress import terminal_progress
from darkroom.config import DeploymentConfig
from darkroom.config.sagemaker import Placement
from darkroom.models.bundle import Bundle
from darkroom.tracking.registry import RegisteredModel, approve
from steps.chosen_backend import chosen_backend


@step(enable_cache=False, experiment_tracker=True)
def deploy_model(
    bundle: Bundle,
    registered: RegisteredModel,
    deployment: DeploymentConfig,
    keep_endpoint: bool,
    placement: Placement,
) -> Annotated[Endpoint, "endpoint"]:
    """Call the model approved, start an endpoint and wait until it is in service.

    Only what passed the gate gets here; what an earlier run registered may be approved once more.

    Args:
        bundle: the packed model.
        registered: its version in the registry.
        deployment: how long the start may take.
        keep_endpoint: whether the endpoint outlives this run.
        placement: the `serve` program on a loopback port, or an endpoint of SageMaker.
    """
    approve(registered)
    return chosen_backend(placement).deploy(
        bundle,
        name=registered.name,
        deployment=deployment,
        keep=keep_endpoint,
        progress=terminal_progress(),
    )
