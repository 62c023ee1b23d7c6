"""Models and endpoint configurations: kept as they were requested, described as AWS does."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rehearsal.emulator.errors import invalid
from rehearsal.emulator.state import State, now


@dataclass
class Model:
    """What CreateModel was told."""

    name: str
    arn: str
    request: Mapping[str, Any]
    created: datetime = field(default_factory=now)

    @property
    def containers(self) -> list[Mapping[str, Any]]:
        """The definitions of its containers; the first is the primary one."""
        primary = self.request.get("PrimaryContainer")
        return [primary] if primary else list(self.request.get("Containers", []))

    def description(self) -> dict[str, Any]:
        """The answer of DescribeModel."""
        kept = {key: value for key, value in self.request.items() if key != "Tags"}
        return {
            "EnableNetworkIsolation": False,
            **kept,
            "ModelArn": self.arn,
            "CreationTime": self.created,
        }


@dataclass
class EndpointConfig:
    """What CreateEndpointConfig was told."""

    name: str
    arn: str
    request: Mapping[str, Any]
    created: datetime = field(default_factory=now)

    @property
    def variants(self) -> list[Mapping[str, Any]]:
        """Its production variants."""
        return list(self.request["ProductionVariants"])

    @property
    def capture(self) -> Mapping[str, Any]:
        """Its DataCaptureConfig; empty where nothing is captured."""
        return self.request.get("DataCaptureConfig") or {}

    def description(self) -> dict[str, Any]:
        """The answer of DescribeEndpointConfig; settings that were not given are left out."""
        kept = {key: value for key, value in self.request.items() if key != "Tags" and value}
        return {
            "EnableNetworkIsolation": False,
            **kept,
            "EndpointConfigArn": self.arn,
            "CreationTime": self.created,
        }


def model_named(name: str, *, state: State) -> Model:
    """Raises AwsError where there is none."""
    model = state.kept(Model).get(name)
    if model is None:
        raise invalid(f'Could not find model "{state.arn("model", name)}".')
    return model


def endpoint_config_named(name: str, *, state: State) -> EndpointConfig:
    """Raises AwsError where there is none."""
    config = state.kept(EndpointConfig).get(name)
    if config is None:
        arn = state.arn("endpoint-config", name)
        raise invalid(f'Could not find endpoint configuration "{arn}".')
    return config
