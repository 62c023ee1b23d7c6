"""Requests of SageMaker's model registry."""

import re
from collections.abc import Mapping, Sequence

from darkroom.backends.sagemaker.identity import Tag
from darkroom.backends.sagemaker.requests.hosting import Request
from darkroom.backends.sagemaker.site import Site
from darkroom.model.bundle import BundleMetadata
from darkroom.serving.content import ACCEPTED_TYPES

_NOT_ALLOWED = re.compile(r"[^\w\s.:/=+\-@]")
"""In values of CustomerMetadataProperties."""
_LONGEST_VALUE = 256


def group_request(name: str, *, tags: Sequence[Tag]) -> Request:
    """CreateModelPackageGroup."""
    return {
        "ModelPackageGroupName": name,
        "ModelPackageGroupDescription": "Image classifiers trained with Darkroom",
        "Tags": list(tags),
    }


def package_request(
    group: str,
    *,
    metadata: BundleMetadata,
    archive: str,
    metrics: str,
    facts: Mapping[str, str],
    site: Site,
    passed: bool,
) -> Request:
    """CreateModelPackage. It carries no tags: a version has those of its group.

    Args:
        archive: s3:// URI of the model.tar.gz.
        metrics: s3:// URI of the metrics as JSON.
        facts: what is known of the model: data, training job, metrics, …
        passed: whether the gate lets it be deployed.
    """
    request: Request = {
        "ModelPackageGroupName": group,
        "ModelPackageDescription": description(metadata),
        "ModelApprovalStatus": _approval(site, passed=passed),
        "InferenceSpecification": _inference(archive, site=site),
        "ModelMetrics": {
            "ModelQuality": {"Statistics": {"ContentType": "application/json", "S3Uri": metrics}}
        },
        "CustomerMetadataProperties": {k: v for k, f in facts.items() if (v := _clean(f))},
        "Domain": "COMPUTER_VISION",
        "Task": "IMAGE_CLASSIFICATION",
    }
    if job := facts.get("training_job"):
        request["MetadataProperties"] = {"GeneratedBy": job}
    return request


def description(metadata: BundleMetadata) -> str:
    """Names the bundle's version first, by which a package is found again."""
    classes = len(metadata.classes)
    return f"Darkroom bundle {metadata.version}: {metadata.architecture}, {classes} classes"


def _approval(site: Site, *, passed: bool) -> str:
    """Others deploy what is approved: nothing that our own gate refuses."""
    return "Approved" if site.config.hosting.approve and passed else "PendingManualApproval"


def _inference(archive: str, *, site: Site) -> Request:
    return {
        "Containers": [{"Image": site.image, "ModelDataUrl": archive}],
        "SupportedContentTypes": list(ACCEPTED_TYPES),
        "SupportedResponseMIMETypes": ["application/json"],
        "SupportedRealtimeInferenceInstanceTypes": [site.config.hosting.instance_type],
        "SupportedTransformInstanceTypes": [site.config.transform.instance_type],
    }


def _clean(value: str) -> str:
    return _NOT_ALLOWED.sub("-", value)[:_LONGEST_VALUE]
