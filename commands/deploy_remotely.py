"""`deploy` on SageMaker, or on the stand-in that `python -m rehearsal` keeps up."""

from collections.abc import Sequence

from commands.deploy_order import Deployed, DeploymentSpec
from commands.endpoints import account
from darkroom.backends.endpoint import Endpoint, EndpointCheck
from darkroom.backends.sagemaker.hosting.endpoint import deploy, verify_endpoint
from darkroom.backends.sagemaker.hosting.several_models import (
    deploy_several,
    target_of,
    verify_several,
)
from darkroom.backends.sagemaker.session import Clients, SageMakerContext, context_of_environment
from darkroom.base.errors import UserError
from darkroom.base.progress import terminal_progress


def deploy_remotely(order: DeploymentSpec, *, stack: str) -> Deployed:
    """Create or update an endpoint, and verify it.

    Raises:
        UserError: values of the stack are missing, no rehearsal is up, or AWS refuses.
        EndpointError: it did not come into service, or answers differently; it was taken back.
    """
    with account(stack) as clients:
        site = context_of_environment(order.config.sagemaker, run=order.run)
        _require_image(site)
        bring = _deploy_several if order.is_several else _deploy_one
        endpoint, checks = bring(order, site=site, clients=clients)
    kind = "several models" if order.is_several else order.config.sagemaker.hosting.kind
    return Deployed(
        name=str(endpoint.name),
        where=f"on the stack {stack} in {site.region} ({kind})",
        checks=checks,
        hints=_hints(endpoint, models=list(order.bundles), stack=stack),
    )


def _require_image(site: SageMakerContext) -> None:
    """A run has ZenML build one; here nothing is built."""
    if not site.image:
        raise UserError(
            "DARKROOM_IMAGE is not set: a deployment without a run needs an image that is in ECR "
            "already. Push one (make image-hosting, or make image; docs/sagemaker.md, step 5), and "
            "put its URI into stacks/sagemaker.env."
        )


def _deploy_one(
    order: DeploymentSpec, *, site: SageMakerContext, clients: Clients
) -> tuple[Endpoint, dict[str, EndpointCheck]]:
    progress = terminal_progress()
    endpoint = deploy(
        order.bundles[""],
        name=order.name,
        keep=True,
        site=site,
        clients=clients,
        start_timeout_seconds=order.config.deployment.start_timeout_seconds,
        progress=progress,
    )
    expected = order.expected.get("")
    if expected is None:
        return endpoint, {}
    check = verify_endpoint(
        endpoint,
        images=expected.images,
        expected=expected.probabilities,
        classes=expected.classes,
        tolerance=order.config.deployment.tolerance,
        clients=clients,
        progress=progress,
    )
    return endpoint, {"": check}


def _deploy_several(
    order: DeploymentSpec, *, site: SageMakerContext, clients: Clients
) -> tuple[Endpoint, dict[str, EndpointCheck]]:
    progress = terminal_progress()
    endpoint = deploy_several(
        order.bundles,
        name=order.name,
        site=site,
        clients=clients,
        start_timeout_seconds=order.config.deployment.start_timeout_seconds,
        progress=progress,
    )
    checks = verify_several(
        endpoint,
        expected=order.expected,
        tolerance=order.config.deployment.tolerance,
        clients=clients,
        progress=progress,
    )
    return endpoint, checks


def _hints(endpoint: Endpoint, *, models: Sequence[str], stack: str) -> list[str]:
    target = f" --target-model {target_of(models[0])}" if models[0] else ""
    return [
        f"python run.py predict --endpoint {endpoint.name} --stack {stack}{target} IMAGE",
        f"python run.py endpoints --stack {stack}",
        f"python run.py down {endpoint.name} --stack {stack}",
    ]
