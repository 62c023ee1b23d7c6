"""Requests of asynchronous endpoints, which read from S3 and answer there.

https://docs.aws.amazon.com/sagemaker/latest/dg/async-inference.html
"""

from typing import Any, TypeAlias

from darkroom.backends.sagemaker.site import Site

Request: TypeAlias = dict[str, Any]

ANSWERS, FAILURES, IMAGES = "answers", "failures", "images"
"""Folders of an endpoint on S3; what asks it puts its images beside the answers."""
SHORTEST_TTL_SECONDS, LONGEST_TTL_SECONDS = 60, 21600
"""Bounds of RequestTTLSeconds, how long a request may wait in the queue."""


def asynchronous_config(endpoint: str, *, site: Site) -> Request:
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
    seconds = min(max(round(wait_seconds), SHORTEST_TTL_SECONDS), LONGEST_TTL_SECONDS)
    return {
        "EndpointName": endpoint,
        "InputLocation": location,
        "ContentType": content_type,
        "Accept": "application/json",
        "CustomAttributes": f"top_k={top_k}",
        "InferenceId": inference_id,
        "RequestTTLSeconds": seconds,
    }
