"""Endpoints that Application Auto Scaling scales; moto keeps what is registered there."""

from rehearsal.emulator.state import State
from rehearsal.hosting.models import EndpointConfig


def scaled_to_others(
    endpoint: str, *, before: EndpointConfig, after: EndpointConfig, state: State
) -> list[str]:
    """Variants that scale and would get other machines, which AWS refuses."""
    machines = {v["VariantName"]: v.get("InstanceType") for v in before.variants}
    changed = [
        variant["VariantName"]
        for variant in after.variants
        if machines.get(variant["VariantName"], "") not in ("", variant.get("InstanceType"))
    ]
    return [name for name in changed if _is_scaled(f"endpoint/{endpoint}/variant/{name}", state)]


def _is_scaled(resource: str, state: State) -> bool:
    service = state.clients["application-autoscaling"]
    found = service.describe_scalable_targets(ServiceNamespace="sagemaker", ResourceIds=[resource])
    return bool(found["ScalableTargets"])
