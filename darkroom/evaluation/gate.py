"""The gate before deployment."""

from collections.abc import Mapping

from darkroom.config import DeploymentConfig
from darkroom.config.metrics import natural_direction


def refusal(metrics: Mapping[str, float], *, deployment: DeploymentConfig) -> str | None:
    """Why the model is not deployed, or None where it may be.

    Args:
        metrics: headline metrics of the test split.
        deployment: the metric and its threshold.
    """
    if not deployment.enabled:
        return "deployment.enabled is false"
    name, threshold = deployment.gate_metric, deployment.gate_threshold
    value = metrics[name]
    if natural_direction(name) == "minimize":
        return f"{name} {value:.4f} is above {threshold:g}" if value > threshold else None
    return f"{name} {value:.4f} is below {threshold:g}" if value < threshold else None
