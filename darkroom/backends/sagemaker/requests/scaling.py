"""Requests of Application Auto Scaling for the instances of an endpoint.

Of an asynchronous one the waiting requests decide, not those that were sent:
https://docs.aws.amazon.com/sagemaker/latest/dg/async-inference-autoscale.html
"""

from collections.abc import Sequence

from darkroom.backends.sagemaker.identity import Tag
from darkroom.backends.sagemaker.requests.hosting import VARIANT, Request
from darkroom.config.sagemaker import AutoscalingConfig, HostingConfig

_METRIC = "SageMakerVariantInvocationsPerInstance"
_BACKLOG = "ApproximateBacklogSizePerInstance"
_NOBODY_AT_WORK = "HasBacklogWithoutCapacity"
_ALARM_SECONDS = 60


def target_request(endpoint: str, *, scaling: AutoscalingConfig) -> Request:
    """RegisterScalableTarget: the bounds. AWS refuses tags for a target that is registered."""
    return {
        **scalable(endpoint),
        "MinCapacity": scaling.min_instances,
        "MaxCapacity": scaling.max_instances,
    }


def policy_request(endpoint: str, *, hosting: HostingConfig) -> Request:
    """PutScalingPolicy: so many requests a minute and instance, or so many that wait."""
    scaling, is_queue = hosting.autoscaling, hosting.kind == "asynchronous"
    target: Request = (
        {
            "TargetValue": float(hosting.asynchronous.backlog_per_instance),
            "CustomizedMetricSpecification": _queue_metric(endpoint, metric=_BACKLOG),
        }
        if is_queue
        else {
            "TargetValue": float(scaling.invocations_per_instance),
            "PredefinedMetricSpecification": {"PredefinedMetricType": _METRIC},
        }
    )
    return {
        **scalable(endpoint),
        "PolicyName": f"{endpoint}-{'backlog' if is_queue else 'invocations'}",
        "PolicyType": "TargetTrackingScaling",
        "TargetTrackingScalingPolicyConfiguration": {
            **target,
            "ScaleInCooldown": scaling.scale_in_cooldown_seconds,
            "ScaleOutCooldown": scaling.scale_out_cooldown_seconds,
        },
    }


def waking_policy_request(endpoint: str, *, scaling: AutoscalingConfig) -> Request:
    """PutScalingPolicy: the first instance. Without it, the backlog has to reach its target."""
    return {
        **scalable(endpoint),
        "PolicyName": f"{endpoint}-waking",
        "PolicyType": "StepScaling",
        "StepScalingPolicyConfiguration": {
            "AdjustmentType": "ChangeInCapacity",
            "MetricAggregationType": "Average",
            "Cooldown": scaling.scale_out_cooldown_seconds,
            "StepAdjustments": [{"MetricIntervalLowerBound": 0.0, "ScalingAdjustment": 1}],
        },
    }


def waking_alarm_request(endpoint: str, *, policy: str, tags: Sequence[Tag]) -> Request:
    """PutMetricAlarm: something waits, and there is no instance.

    Args:
        policy: ARN of the policy that starts one.
    """
    return {
        "AlarmName": waking_alarm_name(endpoint),
        "AlarmDescription": f"Darkroom starts an instance of the endpoint {endpoint}",
        **_queue_metric(endpoint, metric=_NOBODY_AT_WORK),
        "Period": _ALARM_SECONDS,
        "EvaluationPeriods": 2,
        "DatapointsToAlarm": 2,
        "Threshold": 1.0,
        "ComparisonOperator": "GreaterThanOrEqualToThreshold",
        "TreatMissingData": "missing",
        "AlarmActions": [policy],
        "Tags": list(tags),
    }


def waking_alarm_name(endpoint: str) -> str:
    """Of the alarm that has a first instance started."""
    return f"darkroom-{endpoint}-waiting"


def _queue_metric(endpoint: str, *, metric: str) -> Request:
    return {
        "MetricName": metric,
        "Namespace": "AWS/SageMaker",
        "Dimensions": [{"Name": "EndpointName", "Value": endpoint}],
        "Statistic": "Average",
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
