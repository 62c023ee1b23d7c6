"""The model registry and lineage of the rehearsal, as boto3 sees them."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from rehearsal.emulator.server import emulator

IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/tiny:1"


@pytest.fixture(scope="module")
def sagemaker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with emulator(tmp_path_factory.mktemp("registry"), images={IMAGE: None}) as running:
        yield running.client("sagemaker")


def register(sagemaker: Any, group: str, **more: Any) -> str:
    container = {"Image": IMAGE, "ModelDataUrl": "s3://bucket/model.tar.gz"}
    answer = sagemaker.create_model_package(
        ModelPackageGroupName=group,
        InferenceSpecification={
            "Containers": [container],
            "SupportedContentTypes": ["image/png"],
            "SupportedResponseMIMETypes": ["application/json"],
        },
        **more,
    )
    return str(answer["ModelPackageArn"])


def code_of(call: Callable[[], Any]) -> str:
    with pytest.raises(ClientError) as caught:
        call()
    return str(caught.value.response["Error"]["Code"])


def test_packages_are_versions_of_their_group(sagemaker: Any) -> None:
    tags = [{"Key": "darkroom:run", "Value": "r"}]
    sagemaker.create_model_package_group(ModelPackageGroupName="versions", Tags=tags)
    arns = [register(sagemaker, "versions") for _ in range(2)]
    assert [arn.rpartition("/")[2] for arn in arns] == ["1", "2"]
    found = sagemaker.describe_model_package(ModelPackageName=arns[1])
    assert found["ModelPackageVersion"] == 2
    assert found["ModelApprovalStatus"] == "PendingManualApproval"
    assert found["InferenceSpecification"]["Containers"][0]["Image"] == IMAGE
    sagemaker.delete_model_package(ModelPackageName=arns[1])
    assert register(sagemaker, "versions").endswith("/3")
    listed = sagemaker.list_model_packages(
        ModelPackageGroupName="versions", SortOrder="Descending"
    )["ModelPackageSummaryList"]
    assert [row["ModelPackageVersion"] for row in listed] == [3, 1]
    arn = sagemaker.describe_model_package_group(ModelPackageGroupName="versions")[
        "ModelPackageGroupArn"
    ]
    assert sagemaker.list_tags(ResourceArn=arn)["Tags"] == tags


def test_an_update_changes_what_is_given_alone(sagemaker: Any) -> None:
    sagemaker.create_model_package_group(ModelPackageGroupName="updates")
    arn = register(sagemaker, "updates", CustomerMetadataProperties={"a": "1", "b": "2"})
    sagemaker.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Approved")
    sagemaker.update_model_package(
        ModelPackageArn=arn,
        CustomerMetadataProperties={"c": "3"},
        CustomerMetadataPropertiesToRemove=["a"],
    )
    found = sagemaker.describe_model_package(ModelPackageName=arn)
    assert found["ModelApprovalStatus"] == "Approved"
    assert found["CustomerMetadataProperties"] == {"b": "2", "c": "3"}
    approved = sagemaker.list_model_packages(
        ModelPackageGroupName="updates", ModelApprovalStatus="Approved"
    )
    assert len(approved["ModelPackageSummaryList"]) == 1


def test_a_group_goes_when_it_is_empty(sagemaker: Any) -> None:
    sagemaker.create_model_package_group(ModelPackageGroupName="going")
    again = {"ModelPackageGroupName": "going"}
    assert code_of(lambda: sagemaker.create_model_package_group(**again)) == "ValidationException"
    arn = register(sagemaker, "going")
    assert code_of(lambda: sagemaker.delete_model_package_group(**again)) == "ConflictException"
    sagemaker.delete_model_package(ModelPackageName=arn)
    sagemaker.delete_model_package_group(**again)
    assert code_of(lambda: sagemaker.describe_model_package_group(**again)) == (
        "ValidationException"
    )


def test_a_package_needs_its_group(sagemaker: Any) -> None:
    assert code_of(lambda: register(sagemaker, "nobody")) == "ValidationException"


def test_lineage_links_what_exists(sagemaker: Any) -> None:
    data = sagemaker.create_artifact(
        ArtifactName="data", ArtifactType="DataSet", Source={"SourceUri": "s3://bucket/data"}
    )["ArtifactArn"]
    action = sagemaker.create_action(
        ActionName="train", ActionType="Training", Source={"SourceUri": "job"}
    )["ActionArn"]
    sagemaker.create_context(ContextName="run", ContextType="Run", Source={"SourceUri": "run"})
    sagemaker.add_association(
        SourceArn=data, DestinationArn=action, AssociationType="ContributedTo"
    )
    (row,) = sagemaker.list_associations(DestinationArn=action)["AssociationSummaries"]
    assert (row["SourceArn"], row["SourceName"]) == (data, "data")
    assert row["AssociationType"] == "ContributedTo"
    found = sagemaker.list_artifacts(SourceUri="s3://bucket/data")["ArtifactSummaries"]
    assert [each["ArtifactArn"] for each in found] == [data]
    assert code_of(lambda: sagemaker.delete_artifact(ArtifactArn=data)) == "ValidationException"
    sagemaker.delete_association(SourceArn=data, DestinationArn=action)
    sagemaker.delete_artifact(ArtifactArn=data)
    assert code_of(lambda: sagemaker.describe_artifact(ArtifactArn=data)) == "ResourceNotFound"


def test_nothing_is_linked_to_what_does_not_exist(sagemaker: Any) -> None:
    arn = "arn:aws:sagemaker:us-east-1:123456789012:artifact/0123456789abcdef"
    link = {"SourceArn": arn, "DestinationArn": arn}
    assert code_of(lambda: sagemaker.add_association(**link)) == "ResourceNotFound"


def test_what_the_registry_does_not_do_is_refused_in_words(sagemaker: Any) -> None:
    with pytest.raises(ClientError, match="not executed in the rehearsal"):
        sagemaker.batch_describe_model_package(
            ModelPackageArnList=["arn:aws:sagemaker:us-east-1:123456789012:model-package/x/1"]
        )
