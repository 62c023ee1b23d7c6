"""Registers the stack that a YAML describes and chooses it for this process alone."""

import os
from pathlib import Path
from string import Template
from typing import Any
from uuid import UUID

import yaml
from filelock import FileLock
from zenml.client import Client
from zenml.enums import StackComponentType
from zenml.integrations.integration import Integration
from zenml.integrations.registry import integration_registry
from zenml.utils.source_utils import set_custom_source_root

from darkroom.errors import UserError
from stacks.environment import CHECKOUT

_FOLDER = Path(__file__).resolve().parent
_INTEGRATIONS = ("mlflow",)


class _NotNeeded(Integration):
    """Stands for an integration that Darkroom does not use."""

    @classmethod
    def check_installation(cls) -> bool:
        """Keep ZenML from importing it."""
        return False


def use_stack(name: str) -> UUID:
    """Register or update the stack `name` and make it this process's active one.

    The user's own active stack, working folder and home stay as they are.
    """
    set_custom_source_root(str(CHECKOUT))
    _skip_unused_integrations()
    # Two processes that create ZenML's database at once would crash.
    lock = Path(os.environ["DARKROOM_HOME"]) / "stack.lock"
    with FileLock(lock):
        stack_id = _register(read_stack(_FOLDER / f"{name}.yaml"))
    os.environ["ZENML_ACTIVE_STACK_ID"] = str(stack_id)
    return stack_id


def _skip_unused_integrations() -> None:
    """ZenML imports every installed integration (torch, sklearn, AWS, …): seconds at each start."""
    for name in integration_registry.list_integration_names:
        if name not in _INTEGRATIONS:
            integration_registry.register_integration(name, _NotNeeded)


def read_stack(path: Path) -> dict[str, Any]:
    """The description of a stack, with environment variables in the place of `${NAME}`.

    Raises:
        UserError: variables that the description needs are not set.
    """
    description: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    for parts in description["components"].values():
        for part in parts:
            part["configuration"] = {
                key: _filled_in(value, path=path) for key, value in part["configuration"].items()
            }
    return description


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
    name, configuration = part["name"], part["configuration"]
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
