"""Requests of models, endpoints and the alarms that watch their updates."""

from collections.abc import Sequence
from math import ceil
from typing import Any, TypeAlias

from darkroom.backends.sagemaker.identity import Tag
from darkroom.backends.sagemaker.requests.asynchronous import asynchronous_config
from darkroom.backends.sagemaker.requests.volumes import volume_key
from darkroom.backends.sagemaker.site import Site
from darkroom.config.sagemaker import HostingConfig, RolloutConfig, ServerlessConfig

Request: TypeAlias = dict[str, Any]

VARIANT = "AllTraffic"
"""The one variant of our endpoints; a blue/green update asks for the same name in both."""

LARGEST_ASYNCHRONOUS_BYTES = 25 * 2**20
"""Of an image: AWS passes on 1 GB, but the server holds requests in memory."""

_LONGEST_EXECUTION_SECONDS = 8 * 3600
_LAUNCH_SECONDS = 3600
_ALARM_SECONDS = 60
_MICROSECONDS = 1000
_PERCENT = 100
_TRAFFIC_TYPES = {"all_at_once": "ALL_AT_ONCE", "canary": "CANARY", "linear": "LINEAR"}


def model_request(name: str, *, archive: str, site: Site, tags: Sequence[Tag]) -> Request:
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
    return {"DARKROOM_SERVE_MAXIMUM_BODY_BYTES": str(LARGEST_ASYNCHRONOUS_BYTES)}


def configuration_request(
    name: str,
    *,
    model: str,
    endpoint: str,
    site: Site,
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


def _capture(endpoint: str, *, site: Site) -> Request:
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
    return min(_LAUNCH_SECONDS + waits, _LONGEST_EXECUTION_SECONDS)


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
