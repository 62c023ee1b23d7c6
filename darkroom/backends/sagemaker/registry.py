"""SageMaker's model registry: a group of versions, each a bundle with where it comes from."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from botocore.exceptions import ClientError

from darkroom.backends.s3_listing import S3Address
from darkroom.backends.sagemaker.archives import encryption, publish_bundle
from darkroom.backends.sagemaker.aws_errors import aws_errors_explained, is_missing, is_taken
from darkroom.backends.sagemaker.clients import Clients
from darkroom.backends.sagemaker.hosting_names import clean
from darkroom.backends.sagemaker.identity import tags_of
from darkroom.backends.sagemaker.requests.registry import (
    description,
    group_request,
    package_request,
)
from darkroom.backends.sagemaker.site import Site
from darkroom.dataset import Dataset
from darkroom.model.bundle import Bundle
from darkroom.progress import SILENT, Progress


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
    site: Site,
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


def _create_group(group: str, *, site: Site, clients: Clients) -> None:
    # The group outlives the run that came first, and is not to be taken for a part of it.
    tags = tags_of(replace(site, run=""), model=group)
    try:
        clients.sagemaker.create_model_package_group(**group_request(group, tags=tags))
    except ClientError as error:
        if not is_taken(error):
            raise


def _publish_metrics(
    bundle: Bundle, *, metrics: Mapping[str, float], site: Site, clients: Clients
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
    bundle: Bundle, *, metrics: Mapping[str, float], dataset: Dataset, job: str | None, site: Site
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
