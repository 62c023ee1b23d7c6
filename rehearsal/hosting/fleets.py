"""The containers behind an endpoint configuration; requests are spread over them by weight."""

import random
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rehearsal.emulator.errors import AwsError
from rehearsal.hosting.models import EndpointConfig
from rehearsal.hosting.servers import ModelServer


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
