"""How an update moves an endpoint's traffic to its new fleet: which share, and for how long.

The guardrails of SageMaker's developer guide, "Blue/Green Deployments" and "Rolling
Deployments", as a list of stages; updates.py walks through them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Any

_WHOLE = Fraction(1)


@dataclass(frozen=True)
class Stage:
    """A share of the traffic goes to the new fleet while alarms are watched."""

    share: Fraction
    wait_seconds: int
    """On AWS: the baking period before the next stage."""


def stages(deployment: Mapping[str, Any], *, instances: int) -> list[Stage]:
    """The stages of a DeploymentConfig; the last one's share is 1.

    instances: of the new fleet, by which sizes given as INSTANCE_COUNT are measured.
    Without a configuration everything moves at once and nothing is waited for, as AWS does.
    """
    rolling = deployment.get("RollingUpdatePolicy")
    if rolling:
        return _even_steps(
            _share(rolling["MaximumBatchSize"], instances=instances),
            wait_seconds=rolling["WaitIntervalInSeconds"],
        )
    routing = deployment.get("BlueGreenUpdatePolicy", {}).get("TrafficRoutingConfiguration")
    if not routing:
        return [Stage(_WHOLE, wait_seconds=0)]
    return _blue_green(routing, instances=instances)


def _blue_green(routing: Mapping[str, Any], *, instances: int) -> list[Stage]:
    wait = int(routing["WaitIntervalInSeconds"])
    if routing["Type"] == "CANARY":
        canary = _share(routing["CanarySize"], instances=instances)
        return [Stage(canary, wait_seconds=wait), Stage(_WHOLE, wait_seconds=wait)]
    if routing["Type"] == "LINEAR":
        step = _share(routing["LinearStepSize"], instances=instances)
        return _even_steps(step, wait_seconds=wait)
    return [Stage(_WHOLE, wait_seconds=wait)]


def _even_steps(step: Fraction, *, wait_seconds: int) -> list[Stage]:
    count = ceil(1 / step)
    return [Stage(min(step * (i + 1), _WHOLE), wait_seconds=wait_seconds) for i in range(count)]


def _share(size: Mapping[str, Any], *, instances: int) -> Fraction:
    whole = 100 if size["Type"] == "CAPACITY_PERCENT" else max(instances, 1)
    return min(Fraction(int(size["Value"]), whole), _WHOLE)
