"""Requests of batch transform jobs."""

from collections.abc import Sequence

from darkroom.backends.sagemaker.identity import Tag
from darkroom.backends.sagemaker.requests.hosting import Request
from darkroom.backends.sagemaker.requests.volumes import volume_key
from darkroom.backends.sagemaker.site import Site
from darkroom.config.sagemaker import TransformConfig

_MEGABYTES_AT_ONCE = 100
"""AWS: MaxConcurrentTransforms × MaxPayloadInMB may not be more."""
_MEGABYTES = 6
"""`serve` accepts no larger image."""
_SECONDS_TO_ANSWER = 60
_RETRIES = 2


def transform_request(
    name: str, *, model: str, images: str, output: str, site: Site, tags: Sequence[Tag]
) -> Request:
    """CreateTransformJob: every object below a prefix is one image and one request.

    Args:
        images: s3:// prefix of the images.
        output: s3:// prefix of the answers.
    """
    config, key = site.config.transform, site.config.kms_key
    disk_key = volume_key(config.instance_type, key=key)
    return {
        "TransformJobName": name,
        "ModelName": model,
        "MaxConcurrentTransforms": config.concurrent_requests,
        "MaxPayloadInMB": largest_megabytes(config),
        "ModelClientConfig": {
            "InvocationsTimeoutInSeconds": _SECONDS_TO_ANSWER,
            "InvocationsMaxRetries": _RETRIES,
        },
        "BatchStrategy": "SingleRecord",
        "TransformInput": _input(images),
        "TransformOutput": {
            "S3OutputPath": output,
            "Accept": "application/json",
            "AssembleWith": "None",
            **({"KmsKeyId": key} if key else {}),
        },
        "TransformResources": {
            "InstanceType": config.instance_type,
            "InstanceCount": config.instance_count,
            **({"VolumeKmsKeyId": disk_key} if disk_key else {}),
        },
        "Tags": list(tags),
    }


def _input(images: str) -> Request:
    return {
        "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": images}},
        "ContentType": "application/x-image",
        "CompressionType": "None",
        "SplitType": "None",
    }


def largest_megabytes(config: TransformConfig) -> int:
    """Size of the largest image, in MiB: less where many are answered at once."""
    return max(1, min(_MEGABYTES, _MEGABYTES_AT_ONCE // config.concurrent_requests))
