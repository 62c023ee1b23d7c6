"""Requests of models, endpoints, their alarms and their scaling."""

from collections.abc import Sequence
from math import ceil
from typing import Any, TypeAlias

from darkroom.backends.sagemaker.requests import volume_key
from darkroom.backends.sagemaker.resources import Tag
from darkroom.backends.sagemaker.session import SageMakerContext
from darkroom.config.sagemaker import (
    AutoscalingConfig,
    HostingConfig,
    RolloutConfig,
    ServerlessConfig,
)

# --- asynchronous ---
# Requests of asynchronous endpoints, which read from S3 and answer there.
#
# https://docs.aws.amazon.com/sagemaker/latest/dg/async-inference.html

Request: TypeAlias = dict[str, Any]

ANSWERS, FAILURES, IMAGES = "answers", "failures", "images"
"""Folders of an endpoint on S3; what asks it puts its images beside the answers."""
MIN_TTL_SECONDS, MAX_TTL_SECONDS = 60, 21600
"""Bounds of RequestTTLSeconds, how long a request may wait in the queue."""


def asynchronous_config(endpoint: str, *, site: SageMakerContext) -> Request:
    """CreateEndpointConfig's AsyncInferenceConfig: where answers and failures go."""
    settings = site.config.hosting.asynchronous
    output: Request = {
        "S3OutputPath": site.uri("asynchronous", endpoint, ANSWERS),
        "S3FailurePath": site.uri("asynchronous", endpoint, FAILURES),
    }
    topics = {"SuccessTopic": settings.success_topic, "ErrorTopic": settings.error_topic}
    if named := {name: topic for name, topic in topics.items() if topic}:
        output["NotificationConfig"] = named
    if site.config.kms_key:
        output["KmsKeyId"] = site.config.kms_key
    config: Request = {"OutputConfig": output}
    if settings.max_concurrent_invocations:
        limit = settings.max_concurrent_invocations
        config["ClientConfig"] = {"MaxConcurrentInvocationsPerInstance": limit}
    return config


def invoke_asynchronously_request(
    endpoint: str,
    *,
    location: str,
    content_type: str,
    top_k: int,
    inference_id: str,
    wait_seconds: float,
) -> Request:
    """InvokeEndpointAsync with an encoded image that lies on S3.

    Args:
        location: s3:// URI of the image.
        inference_id: which the answer's record and SNS's message repeat.
        wait_seconds: after which nobody wants the answer any more.
    """
    seconds = min(max(round(wait_seconds), MIN_TTL_SECONDS), MAX_TTL_SECONDS)
    return {
        "EndpointName": endpoint,
        "InputLocation": location,
        "ContentType": content_type,
        "Accept": "application/json",
        "CustomAttributes": f"top_k={top_k}",
        "InferenceId": inference_id,
        "RequestTTLSeconds": seconds,
    }


# --- models, endpoints and alarms ---

VARIANT = "AllTraffic"
"""The one variant of our endpoints; a blue/green update asks for the same name in both."""

MAX_ASYNCHRONOUS_BYTES = 25 * 2**20
"""Of an image: AWS passes on 1 GB, but the server holds requests in memory."""

_MAX_EXECUTION_SECONDS = 8 * 3600
_LAUNCH_SECONDS = 3600
_ALARM_SECONDS = 60
_MICROSECONDS = 1000
_PERCENT = 100
_TRAFFIC_TYPES = {"all_at_once": "ALL_AT_ONCE", "canary": "CANARY", "linear": "LINEAR"}


def model_request(
    name: str, *, archive: str, site: SageMakerContext, tags: Sequence[Tag]
) -> Request:
    """CreateModel: our image with a bundle, or with several.

    Args:
        archive: s3:// URI of the model.tar.gz; one that ends in a slash is the prefix below
            which the archives of several models lie.
    """
    network = site.config.network
    container: Request = {"Image": site.image, "ModelDataUrl": archive}
    if archive.endswith("/"):
        cache = "Enabled" if site.config.hosting.multi_model.cache else "Disabled"
        container |= {"Mode": "MultiModel", "MultiModelConfig": {"ModelCacheSetting": cache}}
    if variables := environment(site.config.hosting):
        container["Environment"] = variables
    request: Request = {
        "ModelName": name,
        "ExecutionRoleArn": site.hosting_role,
        "PrimaryContainer": container,
        "EnableNetworkIsolation": network.isolation,
        "Tags": list(tags),
    }
    if network.subnets:
        request["VpcConfig"] = {
            "Subnets": list(network.subnets),
            "SecurityGroupIds": list(network.security_group_ids),
        }
    return request


def environment(hosting: HostingConfig) -> dict[str, str]:
    """Settings of the `serve` program that the kind of endpoint asks for."""
    if hosting.kind != "asynchronous":
        return {}
    return {"DARKROOM_SERVE_MAXIMUM_BODY_BYTES": str(MAX_ASYNCHRONOUS_BYTES)}


def configuration_request(
    name: str,
    *,
    model: str,
    endpoint: str,
    site: SageMakerContext,
    tags: Sequence[Tag],
    start_timeout_seconds: float,
) -> Request:
    """CreateEndpointConfig: one variant, on instances or serverless; or a queue before it.

    Args:
        start_timeout_seconds: for the download of the model, and again until /ping is answered.
    """
    hosting = site.config.hosting
    request: Request = {
        "EndpointConfigName": name,
        "ProductionVariants": [
            _variant(hosting, model=model, start_timeout_seconds=start_timeout_seconds)
        ],
        "Tags": list(tags),
    }
    if hosting.capture_percent:
        request["DataCaptureConfig"] = _capture(endpoint, site=site)
    if hosting.kind == "asynchronous":
        request["AsyncInferenceConfig"] = asynchronous_config(endpoint, site=site)
    if hosting.kind != "serverless" and (
        key := volume_key(hosting.instance_type, key=site.config.kms_key)
    ):
        request["KmsKeyId"] = key
    return request


def endpoint_request(name: str, *, configuration: str, tags: Sequence[Tag]) -> Request:
    """CreateEndpoint."""
    return {"EndpointName": name, "EndpointConfigName": configuration, "Tags": list(tags)}


def update_request(
    name: str, *, configuration: str, hosting: HostingConfig, alarms: Sequence[str] = ()
) -> Request:
    """UpdateEndpoint by the configured rollout, which serverless endpoints know nothing of.

    An endpoint that scales keeps its present number of instances, unless that may be none:
    then nobody could check the new ones.
    https://docs.aws.amazon.com/sagemaker/latest/dg/deployment-guardrails.html

    Args:
        alarms: names of those that roll back.
    """
    request = return_request(name, configuration=configuration)
    if hosting.kind == "serverless":
        return request
    request["DeploymentConfig"] = _deployment(hosting.rollout, alarms=alarms)
    if hosting.scales and hosting.autoscaling.min_instances:
        request["RetainAllVariantProperties"] = True
        request["ExcludeRetainedVariantProperties"] = [{"VariantPropertyType": "DataCaptureConfig"}]
    return request


def return_request(name: str, *, configuration: str) -> Request:
    """UpdateEndpoint back to what served before, at once."""
    return {"EndpointName": name, "EndpointConfigName": configuration}


def alarm_names(endpoint: str) -> tuple[str, str]:
    """Of errors and of latency."""
    return f"darkroom-{endpoint}-5xx", f"darkroom-{endpoint}-latency"


def alarm_requests(endpoint: str, *, rollout: RolloutConfig, tags: Sequence[Tag]) -> list[Request]:
    """PutMetricAlarm for each threshold that is set.

    Invocation5XXErrors is 1 or 0 for each request, so that its average is a share;
    ModelLatency is in microseconds (SageMaker's endpoint invocation metrics).
    """
    errors, latency = alarm_names(endpoint)
    alarms = [
        _alarm(
            errors,
            endpoint=endpoint,
            metric="Invocation5XXErrors",
            threshold=rollout.max_5xx_percent / _PERCENT,
            tags=tags,
        )
    ]
    if rollout.max_latency_ms:
        alarms.append(
            _alarm(
                latency,
                endpoint=endpoint,
                metric="ModelLatency",
                threshold=rollout.max_latency_ms * _MICROSECONDS,
                tags=tags,
            )
        )
    return alarms


def invoke_request(
    endpoint: str, *, image: bytes, content_type: str, top_k: int, target_model: str = ""
) -> Request:
    """InvokeEndpoint with one encoded image.

    Args:
        target_model: of a multi-model endpoint: which archive below its prefix.
    """
    request: Request = {
        "EndpointName": endpoint,
        "Body": image,
        "ContentType": content_type,
        "Accept": "application/json",
        "CustomAttributes": f"top_k={top_k}",
    }
    return request | {"TargetModel": target_model} if target_model else request


def _variant(hosting: HostingConfig, *, model: str, start_timeout_seconds: float) -> Request:
    variant: Request = {"VariantName": VARIANT, "ModelName": model}
    if hosting.kind == "serverless":
        variant["ServerlessConfig"] = _serverless(hosting.serverless)
        return variant
    return variant | {
        "InstanceType": hosting.instance_type,
        "InitialInstanceCount": max(1, hosting.autoscaling.min_instances),
        "InitialVariantWeight": 1.0,
        "ModelDataDownloadTimeoutInSeconds": ceil(start_timeout_seconds),
        "ContainerStartupHealthCheckTimeoutInSeconds": ceil(start_timeout_seconds),
    }


def _serverless(config: ServerlessConfig) -> Request:
    serverless: Request = {
        "MemorySizeInMB": config.memory_mb,
        "MaxConcurrency": config.max_concurrency,
    }
    if config.provisioned_concurrency:
        serverless["ProvisionedConcurrency"] = config.provisioned_concurrency
    return serverless


def _capture(endpoint: str, *, site: SageMakerContext) -> Request:
    capture: Request = {
        "EnableCapture": True,
        "InitialSamplingPercentage": site.config.hosting.capture_percent,
        "DestinationS3Uri": site.uri("capture", endpoint),
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
        "CaptureContentTypeHeader": {"JsonContentTypes": ["application/json"]},
    }
    if site.config.kms_key:
        capture["KmsKeyId"] = site.config.kms_key
    return capture


def _deployment(rollout: RolloutConfig, *, alarms: Sequence[str]) -> Request:
    deployment: Request = {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": _traffic(rollout),
            "TerminationWaitInSeconds": rollout.termination_wait_seconds,
            "MaximumExecutionTimeoutInSeconds": _longest_seconds(rollout),
        }
    }
    if alarms:
        deployment["AutoRollbackConfiguration"] = {
            "Alarms": [{"AlarmName": alarm} for alarm in alarms]
        }
    return deployment


def _traffic(rollout: RolloutConfig) -> Request:
    traffic: Request = {"Type": _TRAFFIC_TYPES[rollout.strategy]}
    size = {"Type": "CAPACITY_PERCENT", "Value": rollout.step_percent}
    if rollout.strategy == "all_at_once":
        return traffic | {"WaitIntervalInSeconds": 0}
    step = "CanarySize" if rollout.strategy == "canary" else "LinearStepSize"
    return traffic | {"WaitIntervalInSeconds": rollout.wait_seconds, step: size}


def _longest_seconds(rollout: RolloutConfig) -> int:
    """Time to launch, and all the waits; AWS allows no more than eight hours."""
    steps = {"all_at_once": 0, "canary": 1, "linear": -(-_PERCENT // rollout.step_percent)}
    waits = steps[rollout.strategy] * rollout.wait_seconds + rollout.termination_wait_seconds
    return min(_LAUNCH_SECONDS + waits, _MAX_EXECUTION_SECONDS)


def _alarm(
    name: str, *, endpoint: str, metric: str, threshold: float, tags: Sequence[Tag]
) -> Request:
    return {
        "AlarmName": name,
        "AlarmDescription": f"Darkroom rolls an update of the endpoint {endpoint} back",
        "Namespace": "AWS/SageMaker",
        "MetricName": metric,
        "Dimensions": [
            {"Name": "EndpointName", "Value": endpoint},
            {"Name": "VariantName", "Value": VARIANT},
        ],
        "Statistic": "Average",
        "Period": _ALARM_SECONDS,
        "EvaluationPeriods": 1,
        "Threshold": threshold,
        "ComparisonOperator": "GreaterThanThreshold",
        "TreatMissingData": "notBreaching",
        "ActionsEnabled": False,
        "Tags": list(tags),
    }


# --- scaling ---
# Requests of Application Auto Scaling for the instances of an endpoint.
#
# Of an asynchronous one the waiting requests decide, not those that were sent:
# https://docs.aws.amazon.com/sagemaker/latest/dg/async-inference-autoscale.html

_METRIC = "SageMakerVariantInvocationsPerInstance"
_BACKLOG = "ApproximateBacklogSizePerInstance"
_NOBODY_AT_WORK = "HasBacklogWithoutCapacity"


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
