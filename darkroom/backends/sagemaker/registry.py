"""SageMaker's model registry: a group of versions, each a bundle with where it comes from."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from botocore.exceptions import ClientError

from darkroom.backends.sagemaker.archives import encryption, publish_bundle
from darkroom.backends.sagemaker.hosting.request import Request
from darkroom.backends.sagemaker.hosting.resources import clean
from darkroom.backends.sagemaker.resources import Tag, tags_of
from darkroom.backends.sagemaker.session import (
    Clients,
    SageMakerContext,
    aws_errors_explained,
    is_missing,
    is_taken,
)
from darkroom.backends.storage.listing import S3Address
from darkroom.base.progress import SILENT, Progress
from darkroom.data.dataset import Dataset
from darkroom.models.bundle import Bundle, BundleMetadata
from darkroom.serving.content import ACCEPTED_TYPES

# --- requests ---
# Requests of SageMaker's model registry.

_NOT_ALLOWED = re.compile(r"[^\w\s.:/=+\-@]")
"""In values of CustomerMetadataProperties."""
_MAX_VALUE = 256


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
    site: SageMakerContext,
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


def _approval(site: SageMakerContext, *, passed: bool) -> str:
    """Others deploy what is approved: nothing that our own gate refuses."""
    return "Approved" if site.config.hosting.approve and passed else "PendingManualApproval"


def _inference(archive: str, *, site: SageMakerContext) -> Request:
    return {
        "Containers": [{"Image": site.image, "ModelDataUrl": archive}],
        "SupportedContentTypes": list(ACCEPTED_TYPES),
        "SupportedResponseMIMETypes": ["application/json"],
        "SupportedRealtimeInferenceInstanceTypes": [site.config.hosting.instance_type],
        "SupportedTransformInstanceTypes": [site.config.transform.instance_type],
    }


def _clean(value: str) -> str:
    return _NOT_ALLOWED.sub("-", value)[:_MAX_VALUE]


# --- registry ---


@dataclass(frozen=True)
class PackageVersion:
    """A version in SageMaker's model registry."""

    group: str
    arn: str
    version: int
    """From 1, counted by SageMaker."""


def register_package(
    bundle: Bundle,
    *,
    name: str,
    metrics: Mapping[str, float],
    dataset: Dataset,
    site: SageMakerContext,
    clients: Clients,
    passed: bool,
    training_job: str | None = None,
    progress: Progress = SILENT,
) -> PackageVersion:
    """Register a bundle; one that the group has already is found, not registered again.

    Args:
        name: of the model; the group's, as far as AWS allows its characters.
        metrics: of the test split.
        dataset: what the model was trained on.
        passed: whether the gate lets it be deployed; else a person has to approve it.
        training_job: name of the job that trained it.

    Raises:
        UserError, DarkroomError: AWS refuses, or cannot be asked.
    """
    group = clean(name)
    with aws_errors_explained(f"model package group {group!r}"):
        if found := _find(bundle, group=group, clients=clients):
            return found
        archive = publish_bundle(bundle, site=site, clients=clients, progress=progress)
        _create_group(group, site=site, clients=clients)
        request = package_request(
            group,
            metadata=bundle.metadata,
            archive=archive,
            metrics=_publish_metrics(bundle, metrics=metrics, site=site, clients=clients),
            facts=_facts(bundle, metrics=metrics, dataset=dataset, job=training_job, site=site),
            site=site,
            passed=passed,
        )
        arn = clients.sagemaker.create_model_package(**request)["ModelPackageArn"]
    return _version(group, arn)


def _find(bundle: Bundle, *, group: str, clients: Clients) -> PackageVersion | None:
    """The newest version of the group that holds the bundle."""
    wanted = description(bundle.metadata)
    pages = clients.sagemaker.get_paginator("list_model_packages").paginate(
        ModelPackageGroupName=group, SortBy="CreationTime", SortOrder="Descending"
    )
    try:
        for page in pages:
            for one in page["ModelPackageSummaryList"]:
                if one.get("ModelPackageDescription") == wanted:
                    return _version(group, one["ModelPackageArn"])
    except ClientError as error:
        if not is_missing(error):
            raise
    return None


def _create_group(group: str, *, site: SageMakerContext, clients: Clients) -> None:
    # The group outlives the run that came first, and is not to be taken for a part of it.
    tags = tags_of(replace(site, run=""), model=group)
    try:
        clients.sagemaker.create_model_package_group(**group_request(group, tags=tags))
    except ClientError as error:
        if not is_taken(error):
            raise


def _publish_metrics(
    bundle: Bundle, *, metrics: Mapping[str, float], site: SageMakerContext, clients: Clients
) -> str:
    """Write the metrics to S3 in the form that SageMaker Studio shows; their URI."""
    uri = site.uri("models", bundle.metadata.place, "metrics.json")
    values = {
        name: {"value": value, "standard_deviation": "NaN"} for name, value in metrics.items()
    }
    address = S3Address.parse(uri)
    clients.s3.put_object(
        Bucket=address.bucket,
        Key=address.key,
        Body=json.dumps({"multiclass_classification_metrics": values}, indent=1).encode(),
        ContentType="application/json",
        **encryption(site),
    )
    return uri


def _facts(
    bundle: Bundle,
    *,
    metrics: Mapping[str, float],
    dataset: Dataset,
    job: str | None,
    site: SageMakerContext,
) -> dict[str, str]:
    """Where the model comes from and how good it is; empty values are left out."""
    metadata = bundle.metadata
    return {
        "bundle_version": metadata.version,
        "architecture": metadata.architecture,
        "data_fingerprint": dataset.fingerprint,
        "data_uri": dataset.shards,
        "training_job": job or "",
        "run": site.run,
        **{f"test_{name}": f"{value:.6g}" for name, value in metrics.items()},
    }


def _version(group: str, arn: str) -> PackageVersion:
    return PackageVersion(group=group, arn=arn, version=int(arn.rpartition("/")[2]))
