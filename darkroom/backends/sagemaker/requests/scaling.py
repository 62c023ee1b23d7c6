"""Requests of Application Auto Scaling for the instances of an endpoint."""

from darkroom.backends.sagemaker.requests.hosting import VARIANT, Request
from darkroom.config.sagemaker import AutoscalingConfig

_METRIC = "SageMakerVariantInvocationsPerInstance"


def target_request(endpoint: str, *, scaling: AutoscalingConfig) -> Request:
    """RegisterScalableTarget: the bounds. AWS refuses tags for a target that is registered."""
    return {
        **scalable(endpoint),
        "MinCapacity": scaling.min_instances,
        "MaxCapacity": scaling.max_instances,
    }


def policy_request(endpoint: str, *, scaling: AutoscalingConfig) -> Request:
    """PutScalingPolicy: so many requests a minute and instance."""
    return {
        **scalable(endpoint),
        "PolicyName": f"{endpoint}-invocations",
        "PolicyType": "TargetTrackingScaling",
        "TargetTrackingScalingPolicyConfiguration": {
            "TargetValue": float(scaling.invocations_per_instance),
            "PredefinedMetricSpecification": {"PredefinedMetricType": _METRIC},
            "ScaleInCooldown": scaling.scale_in_cooldown_seconds,
            "ScaleOutCooldown": scaling.scale_out_cooldown_seconds,
        },
    }


def scalable(endpoint: str) -> Request:
    """DeregisterScalableTarget; and what the other requests begin with."""
    return {
        "ServiceNamespace": "sagemaker",
        "ResourceId": resource_id(endpoint),
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }


def resource_id(endpoint: str) -> str:
    """Application Auto Scaling's name of the endpoint's variant."""
    return f"endpoint/{endpoint}/variant/{VARIANT}"
