"""`deploy` on this machine: the `serve` program, which stays."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from commands.deploy_order import Deployed, DeploymentSpec
from darkroom.backends.contract import keep_bundle
from darkroom.backends.endpoint import (
    Endpoint,
    EndpointCheck,
    Expectation,
    compare_answers,
    require_agreement,
)
from darkroom.backends.local.endpoint import TARGET_MODEL_HEADER, EndpointClient
from darkroom.backends.local.records import (
    deploy_models,
    end_kept,
    keep_endpoint,
    kept_endpoints,
    models_of,
    remove_models,
    several_named,
    target_of,
)
from darkroom.base.errors import DarkroomError
from darkroom.base.files import link_or_copy, workspace
from darkroom.models.bundle import FILES, Bundle


def deploy_locally(order: DeploymentSpec) -> Deployed:
    """Start a server that stays, or have models join one that runs; compare its answers.

    Raises:
        UserError: one of the names stands for another model there.
        EndpointError: it did not start, or answers differently; then it was ended.
    """
    joined = several_named(order.name) if order.is_several else None
    before = models_of(joined) if joined else []
    endpoint = _start(order)
    tolerance = order.config.deployment.tolerance
    try:
        checks = {
            model: _check(endpoint, model=model, expected=expected, tolerance=tolerance)
            for model, expected in order.expected.items()
        }
    except DarkroomError:
        if joined:
            remove_models(set(order.bundles) - set(before), kept=joined)
        else:
            _end(endpoint)
        raise
    return Deployed(
        name=str(endpoint.name),
        where=f"at {endpoint.url} (process {endpoint.pid}, log {endpoint.log})",
        checks=checks,
        hints=_hints(endpoint, models=list(order.bundles)),
    )


def _start(order: DeploymentSpec) -> Endpoint:
    seconds = order.config.deployment.start_timeout_seconds
    if order.is_several:
        return deploy_models(order.bundles, name=order.name, run=order.run, timeout_seconds=seconds)
    bundle = _lasting(order.bundles[""])
    return keep_endpoint(bundle, name=order.name, run=order.run, timeout_seconds=seconds)


def _end(endpoint: Endpoint) -> None:
    for kept in kept_endpoints():
        if kept.name == endpoint.name:
            end_kept(kept)


def _lasting(bundle: Bundle) -> Bundle:
    """A copy in the workspace: a server that is started again needs it after this command."""
    folder = workspace() / "bundles"
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".copied-") as scratch:
        copied = Path(scratch, "bundle")
        copied.mkdir()
        # What lies elsewhere is the user's, who may change it in place.
        is_ours = bundle.folder.resolve().is_relative_to(workspace())
        for file in FILES:
            (link_or_copy if is_ours else shutil.copy2)(bundle.folder / file, copied / file)
        return keep_bundle(copied, folder=folder)


def _check(
    endpoint: Endpoint, *, model: str, expected: Expectation, tolerance: float
) -> EndpointCheck:
    target = target_of(model) if model else ""
    with EndpointClient(str(endpoint.url), target_model=target) as client:
        check = compare_answers(
            client,
            images=expected.images,
            expected=expected.probabilities,
            classes=expected.classes,
            tolerance=tolerance,
        )
    require_agreement(check, tolerance=tolerance)
    return check


def _hints(endpoint: Endpoint, *, models: Sequence[str]) -> list[str]:
    target = f" -H '{TARGET_MODEL_HEADER}: {target_of(models[0])}'" if models[0] else ""
    option = f" --target-model {target_of(models[0])}" if models[0] else ""
    return [
        f"curl --data-binary @image.jpg -H 'Content-Type: image/jpeg'{target} "
        f"{endpoint.url}/invocations",
        f"python run.py predict --endpoint {endpoint.name}{option} IMAGE",
        f"python run.py down {endpoint.name} --stack local",
    ]
