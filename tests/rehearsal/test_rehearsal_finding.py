"""Finding things in the rehearsal: SageMaker's Search, and log events by prefix."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from emulated import BUCKET, IMAGES, trained, training_request
from rehearsal.emulator.errors import NOT_EXECUTED
from rehearsal.emulator.server import emulator
from tiny_images import CachedClients

pytestmark = pytest.mark.slow

METRIC = [{"Name": "score", "Regex": "score=([0-9.]+)"}]


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CachedClients]:
    """Two jobs, `low` with the score 2 and `high` with 10, and a group of models."""
    with emulator(tmp_path_factory.mktemp("finding"), images=IMAGES) as running:
        clients = CachedClients(running)
        clients.client("s3").create_bucket(Bucket=BUCKET)
        sagemaker = clients.client("sagemaker")
        for name, score in (("low", 2), ("high", 10)):
            request = training_request(
                name, script=f"echo score={score}", Tags=[{"Key": "team", "Value": name}]
            )
            request["AlgorithmSpecification"]["MetricDefinitions"] = METRIC
            trained(sagemaker, request | {"HyperParameters": {"depth": str(score)}})
        sagemaker.create_model_package_group(ModelPackageGroupName="clouds")
        yield clients


def names(aws: CachedClients, *filters: tuple[str, str, str], **more: Any) -> list[str]:
    """The training jobs that pass filters of (name, operator, value)."""
    listed = [dict(zip(("Name", "Operator", "Value"), each, strict=True)) for each in filters]
    expression = {"Filters": [{k: v for k, v in f.items() if v} for f in listed]} if listed else {}
    found = aws.client("sagemaker").search(
        Resource="TrainingJob", SearchExpression={**expression, **more.pop("also", {})}, **more
    )
    return [each["TrainingJob"]["TrainingJobName"] for each in found["Results"]]


def test_a_job_is_found_by_the_model_that_it_made(aws: CachedClients) -> None:
    model = f"s3://{BUCKET}/out/high/output/model.tar.gz"
    assert names(aws, ("ModelArtifacts.S3ModelArtifacts", "Equals", model)) == ["high"]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (("TrainingJobName", "Contains", "IG"), ["high"]),
        (("TrainingJobName", "NotEquals", "high"), ["low"]),
        (("TrainingJobName", "In", "low,high"), ["high", "low"]),
        (("Tags.team", "Equals", "low"), ["low"]),
        # As numbers: as text, 10 would be less than 9.
        (("Metrics.score", "GreaterThan", "9"), ["high"]),
        (("HyperParameters.depth", "LessThanOrEqualTo", "2"), ["low"]),
        (("CreationTime", "GreaterThan", "2020-01-01T00:00:00Z"), ["high", "low"]),
        (("CreationTime", "LessThan", "2020-01-01T00:00:00Z"), []),
        (("FailureReason", "Exists", ""), []),
        (("FailureReason", "NotExists", ""), ["high", "low"]),
    ],
)
def test_each_operator_compares(
    aws: CachedClients, wanted: tuple[str, str, str], found: list[str]
) -> None:
    assert names(aws, wanted) == found


def test_expressions_combine(aws: CachedClients) -> None:
    low, high = (("Tags.team", "Equals", team) for team in ("low", "high"))
    assert names(aws, low, high) == []
    assert names(aws, low, high, also={"Operator": "Or"}) == ["high", "low"]
    inner = {"Filters": [{"Name": "Tags.team", "Operator": "Equals", "Value": "low"}]}
    assert names(aws, also={"SubExpressions": [inner]}) == ["low"]
    transition = {"Name": "SecondaryStatusTransitions.Status", "Value": "Completed"}
    nested = {"NestedPropertyName": "SecondaryStatusTransitions", "Filters": [transition]}
    assert names(aws, also={"NestedFilters": [nested]}) == ["high", "low"]


def test_results_come_in_order_and_in_pages(aws: CachedClients) -> None:
    assert names(aws, SortBy="Metrics.score", SortOrder="Ascending") == ["low", "high"]
    assert names(aws, MaxResults=1) == ["high"]
    assert names(aws, MaxResults=1, NextToken="1") == ["low"]


def test_other_kinds_are_found_or_refused(aws: CachedClients) -> None:
    sagemaker = aws.client("sagemaker")
    found = sagemaker.search(Resource="ModelPackageGroup")["Results"]
    assert [each["ModelPackageGroup"]["ModelPackageGroupName"] for each in found] == ["clouds"]
    for resource in ("Endpoint", "ModelPackage", "HyperParameterTuningJob"):
        assert sagemaker.search(Resource=resource)["Results"] == []
    with pytest.raises(ClientError, match=NOT_EXECUTED):
        sagemaker.search(Resource="FeatureGroup")


def test_log_events_are_those_of_the_prefix_in_the_order_of_their_times(
    aws: CachedClients,
) -> None:
    logs = aws.client("logs")
    group = {"logGroupName": "/aws/sagemaker/TrainingJobs"}

    def lines(**more: Any) -> list[str]:
        return [e["message"] for e in logs.filter_log_events(**group, **more)["events"]]

    assert lines(logStreamNamePrefix="high/") == ["score=10"]
    assert lines(logStreamNamePrefix="nobody/") == []
    logs.create_log_stream(**group, logStreamName="earlier")
    event = {"timestamp": int(time.time() - 3600) * 1000, "message": "an hour ago"}
    logs.put_log_events(**group, logStreamName="earlier", logEvents=[event])
    assert lines() == ["an hour ago", "score=2", "score=10"]
    with pytest.raises(ClientError, match="InvalidParameterException"):
        lines(logStreamNamePrefix="high/", logStreamNames=["low"])
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        logs.filter_log_events(logGroupName="nowhere", logStreamNamePrefix="x")
