"""Registers the stack that a YAML describes and chooses it for this process alone."""

import os
from contextlib import suppress
from pathlib import Path
from string import Template
from typing import Any
from uuid import UUID

import yaml
from filelock import FileLock
from zenml.client import Client
from zenml.enums import StackComponentType
from zenml.exceptions import EntityExistsError
from zenml.integrations.integration import Integration
from zenml.integrations.registry import integration_registry
from zenml.utils.source_utils import set_custom_source_root

from darkroom.base.errors import UserError
from darkroom.tracking.store import DATABASE_FILE, make_store
from stacks.environment import CHECKOUT
from stacks.stores import prepare_stores
from stacks.values import MANAGED_MLFLOW

_FOLDER = Path(__file__).resolve().parent
_INTEGRATIONS = {"mlflow": "mlflow", "sagemaker": "aws", "aws": "aws", "s3": "s3"}
"""ZenML's integration by the flavor that needs it."""
_SECRETS = ("tracking_token",)
"""Settings that are kept in ZenML's secret store."""


class _NotNeeded(Integration):
    """Stands for an integration that Darkroom does not use."""

    @classmethod
    def check_installation(cls) -> bool:
        """Keep ZenML from importing it."""
        return False


def tracking_uri() -> str:
    """Where the active stack's MLflow is; a server on the network learns who asks."""
    # Of ZenML's MLflow, or of the flavor of ours.
    tracker: Any = Client().active_stack.experiment_tracker
    tracker.configure_mlflow()
    return str(tracker.get_tracking_uri())


def use_stack(name: str, *, orchestrated_here: bool = False) -> UUID:
    """Register or update the stack `name` and make it this process's active one.

    The user's own active stack, working folder and home stay as they are. To be called before
    a pipeline is imported, which uses the store that is made here.

    Args:
        orchestrated_here: with the stack's artifacts and tracker, but components that run in
            this process: for pipelines that are not worth a job that orchestrates.
    """
    set_custom_source_root(str(CHECKOUT))
    description = read_stack(_FOLDER / f"{name}.yaml")
    if orchestrated_here:
        description = _orchestrated_here(description)
    _skip_unused_integrations(description)
    # Two processes that create ZenML's database at once would crash.
    workspace = Path(os.environ["DARKROOM_HOME"])
    with FileLock(workspace / "stack.lock"):
        prepare_stores(workspace)
        _make_tracking_store(description["components"])
        stack_id = _register(description)
    os.environ["ZENML_ACTIVE_STACK_ID"] = str(stack_id)
    return stack_id


def _make_tracking_store(components: dict[str, Any]) -> None:
    """A tracker without an address keeps its database beside the artifacts, which are here then."""
    artifacts, tracker = components["artifact_store"][0], components["experiment_tracker"][0]
    if artifacts["flavor"] == "local" and "tracking_uri" not in tracker["configuration"]:
        folder = Path(artifacts["configuration"]["path"])
        make_store(folder / DATABASE_FILE, artifacts=str(folder / "mlflow_artifacts"))


def _skip_unused_integrations(description: dict[str, Any]) -> None:
    """ZenML imports every installed integration (torch, sklearn, AWS, …): seconds at each start."""
    flavors = [part["flavor"] for parts in description["components"].values() for part in parts]
    needed = {"mlflow", *(_INTEGRATIONS[flavor] for flavor in flavors if flavor in _INTEGRATIONS)}
    for name in integration_registry.list_integration_names:
        if name not in needed:
            integration_registry.register_integration(name, _NotNeeded)


def read_stack(path: Path) -> dict[str, Any]:
    """The description of a stack, with environment variables in the place of `${NAME}`.

    Raises:
        UserError: variables that the description needs are not set.
    """
    description: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    for parts in description["components"].values():
        for part in parts:
            part["name"] = _filled_in(part["name"], path=path)
            part["flavor"] = _filled_in(part["flavor"], path=path)
            values = {
                key: _filled_in(value, path=path) for key, value in part["configuration"].items()
            }
            part["configuration"] = {key: value for key, value in values.items() if value != ""}
    return description


def _orchestrated_here(description: dict[str, Any]) -> dict[str, Any]:
    name, components = f"{description['stack_name']}-here", description["components"]
    return {
        "stack_name": name,
        "components": {
            "orchestrator": [{"name": name, "flavor": "local", "configuration": {}}],
            "artifact_store": components["artifact_store"],
            "experiment_tracker": components["experiment_tracker"],
        },
    }


def _filled_in(value: object, *, path: Path) -> object:
    if not isinstance(value, str):
        return value
    try:
        return Template(value).substitute(os.environ)
    except KeyError as error:
        raise UserError(
            f"the stack {path.stem!r} needs the environment variable {error.args[0]}: set it"
        ) from error


def _register(description: dict[str, Any]) -> UUID:
    """Create what is missing, update what differs; unchanged parts cost two queries each."""
    client = Client()
    wanted = {
        StackComponentType(kind): _register_component(client, StackComponentType(kind), parts[0])
        for kind, parts in description["components"].items()
    }
    name = description["stack_name"]
    try:
        stack = client.get_stack(name, allow_name_prefix_match=False)
    except KeyError:
        return client.create_stack(name, dict(wanted)).id
    present = {kind: components[0].id for kind, components in stack.components.items()}
    if present != wanted:
        client.update_stack(stack.id, component_updates={k: [v] for k, v in wanted.items()})
    return stack.id


def _register_component(client: Client, kind: StackComponentType, part: dict[str, Any]) -> UUID:
    name = part["name"]
    configuration = _without_secrets(client, component=name, configuration=part["configuration"])
    if part["flavor"] == MANAGED_MLFLOW:
        _register_flavor(client, kind)
    try:
        component = client.get_stack_component(kind, name, allow_name_prefix_match=False)
    except KeyError:
        return client.create_stack_component(
            name=name, flavor=part["flavor"], component_type=kind, configuration=configuration
        ).id
    if component.configuration != configuration:
        obsolete = dict.fromkeys(set(component.configuration) - set(configuration))
        client.update_stack_component(name, kind, configuration={**configuration, **obsolete})
    return component.id


def _without_secrets(
    client: Client, *, component: str, configuration: dict[str, Any]
) -> dict[str, Any]:
    """Put secrets into ZenML's store; what is registered, and shown, is a reference to them."""
    values = {key: configuration[key] for key in _SECRETS if key in configuration}
    if not values:
        return configuration
    secret = component.replace("-", "_")
    try:
        client.create_secret(secret, values=values)
    except EntityExistsError:
        client.update_secret(secret, add_or_update_values=values)
    return {**configuration, **{key: f"{{{{{secret}.{key}}}}}" for key in values}}


def _register_flavor(client: Client, kind: StackComponentType) -> None:
    """Make the tracker by ARN known; other stacks do without it."""
    with suppress(EntityExistsError):
        client.create_flavor(
            source="stacks.managed_mlflow.ManagedMLflowFlavor", component_type=kind
        )
