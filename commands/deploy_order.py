"""What `run.py deploy` is asked for, and what it did: shared by it and its two ways to deploy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from darkroom.backends.endpoint import EndpointCheck, Expectation
from darkroom.config import Config
from darkroom.models.bundle import Bundle


@dataclass(frozen=True)
class DeploymentSpec:
    """What is to be deployed."""

    bundles: Mapping[str, Bundle]
    """By the name of each model; one alone has the name ''."""
    name: str
    """Of the endpoint."""
    config: Config
    expected: Mapping[str, Expectation]
    """What the models answer on this machine."""
    run: str
    """Under which whatever is created is tagged, as a pipeline's run is."""

    @property
    def is_several(self) -> bool:
        """Whether the models have names."""
        return "" not in self.bundles


@dataclass(frozen=True)
class Deployed:
    """What became of it."""

    name: str
    where: str
    checks: Mapping[str, EndpointCheck]
    hints: Sequence[str]
    """How to ask it, and how to remove it: one command a line."""
