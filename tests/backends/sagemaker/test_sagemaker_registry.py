"""SageMaker's model registry: registered once, with where the model comes from."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto import mock_aws

from darkroom.backends.sagemaker.registry import (
    PackageVersion,
    group_request,
    package_request,
    register_package,
)
from darkroom.backends.sagemaker.session import Clients, SageMakerContext
from darkroom.base.errors import DarkroomError
from darkroom.config.sagemaker import SageMakerConfig
from darkroom.data.dataset import Dataset
from darkroom.models.bundle import Bundle, read_bundle
from golden_requests import assert_golden, problems
from small_bundles import rewrite_digests, write_other_weights, write_small_bundle

pytestmark = pytest.mark.slow

DATASET = Dataset(
    root=Path("nowhere"), records=(), classes=("a", "b"), source="pets", shards="s3://b/datasets/1/"
)


def site(**hosting: object) -> SageMakerContext:
    return SageMakerContext(
        region="us-east-1",
        role="arn:aws:iam::123456789012:role/jobs",
        image="123456789012.dkr.ecr.us-east-1.amazonaws.com/darkroom:1",
        root="s3://bucket/prefix",
        config=SageMakerConfig.model_validate({"hosting": hosting}),
        run="pets-1",
    )


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return read_bundle(write_small_bundle(tmp_path / "bundle"))


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clients]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with mock_aws():
        clients = Clients("us-east-1")
        clients.s3.create_bucket(Bucket="bucket")
        yield clients


def register(
    bundle: Bundle, *, clients: Clients, place: SageMakerContext | None = None, passed: bool = True
) -> PackageVersion:
    return register_package(
        bundle,
        name="pet.shop_model",
        metrics={"accuracy": 0.98125, "log_loss": 0.05},
        dataset=DATASET,
        site=place or site(),
        clients=clients,
        passed=passed,
        training_job="darkroom-training-1",
    )


def test_the_request_of_a_package(bundle: Bundle) -> None:
    request = package_request(
        "pets",
        metadata=bundle.metadata,
        archive="s3://bucket/prefix/models/1/model.tar.gz",
        metrics="s3://bucket/prefix/models/1/metrics.json",
        facts={"training_job": "job-1", "data": "dogs (100 %), “cats”", "run": ""},
        site=site(approve=False),
        passed=True,
    )
    assert_golden(request, operation="sagemaker:CreateModelPackage", name="create_model_package")


def test_the_request_of_a_group() -> None:
    request = group_request("pets", tags=[{"Key": "darkroom:model", "Value": "pets"}])
    assert problems(request, service="sagemaker", operation="CreateModelPackageGroup") == []


def test_a_package_says_where_the_model_comes_from_and_how_good_it_is(
    bundle: Bundle, clients: Clients
) -> None:
    version = register(bundle, clients=clients)
    assert (version.group, version.version) == ("pet-shop-model", 1)
    found = clients.sagemaker.describe_model_package(ModelPackageName=version.arn)
    assert found["ModelApprovalStatus"] == "Approved"
    assert found["CustomerMetadataProperties"] == {
        "architecture": "resnet18",
        "bundle_version": bundle.metadata.version,
        "data_fingerprint": DATASET.fingerprint,
        "data_uri": "s3://b/datasets/1/",
        "run": "pets-1",
        "test_accuracy": "0.98125",
        "test_log_loss": "0.05",
        "training_job": "darkroom-training-1",
    }
    uri = found["ModelMetrics"]["ModelQuality"]["Statistics"]["S3Uri"]
    body = clients.s3.get_object(Bucket="bucket", Key=uri.removeprefix("s3://bucket/"))["Body"]
    metrics = json.loads(body.read())["multiclass_classification_metrics"]
    assert metrics["accuracy"]["value"] == 0.98125
    archive = found["InferenceSpecification"]["Containers"][0]["ModelDataUrl"]
    assert archive == f"s3://bucket/prefix/models/{bundle.metadata.version}/model.tar.gz"
    clients.s3.head_object(Bucket="bucket", Key=archive.removeprefix("s3://bucket/"))


def test_the_same_bundle_is_registered_once_and_another_is_the_next_version(
    bundle: Bundle, clients: Clients, tmp_path: Path
) -> None:
    first = register(bundle, clients=clients)
    assert register(bundle, clients=clients) == first
    other = write_small_bundle(tmp_path / "other")
    write_other_weights(other, name="other")
    rewrite_digests(other)
    second = register(read_bundle(other), clients=clients)
    assert second.version == 2
    assert register(bundle, clients=clients) == first


@pytest.mark.parametrize(("approve", "passed"), [(False, True), (True, False)])
def test_approval_is_left_to_a_person_where_it_is_wished_or_the_gate_refuses(
    bundle: Bundle, clients: Clients, approve: bool, passed: bool
) -> None:
    version = register(bundle, clients=clients, place=site(approve=approve), passed=passed)
    found = clients.sagemaker.describe_model_package(ModelPackageName=version.arn)
    assert found["ModelApprovalStatus"] == "PendingManualApproval"


def test_a_bucket_that_is_not_there_is_named(bundle: Bundle, clients: Clients) -> None:
    clients.s3.delete_bucket(Bucket="bucket")
    with pytest.raises(DarkroomError, match=r"s3://bucket/.*bucket does not exist"):
        register(bundle, clients=clients)
