"""Tuning jobs of the rehearsal, as boto3 sees them."""

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from rehearsal.emulator.server import emulator
from tiny_images import CachedClients, write_tiny_image

pytestmark = pytest.mark.slow  # they start processes

IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/tiny:1"
ROLE = "arn:aws:iam::123456789012:role/Tiny"
X_RANGE = {"Name": "x", "MinValue": "0.5", "MaxValue": "2.0"}
ENDED = ("Completed", "Failed", "Stopped")


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CachedClients]:
    folder = tmp_path_factory.mktemp("tuning")
    image = write_tiny_image(folder / "image")
    with emulator(folder / "aws", images={IMAGE: image}, stop_grace_seconds=2) as running:
        clients = CachedClients(running)
        clients.client("s3").create_bucket(Bucket="bucket")
        yield clients


@pytest.fixture
def sagemaker(aws: CachedClients) -> Any:
    return aws.client("sagemaker")


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A tuning job's name of this test's."""
    return f"t{abs(hash(request.node.name)) % 10**9}"


def config(**changes: Any) -> dict[str, Any]:
    standard: dict[str, Any] = {
        "Strategy": "Random",
        "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "score"},
        "ResourceLimits": {"MaxNumberOfTrainingJobs": 3, "MaxParallelTrainingJobs": 3},
        "ParameterRanges": {"ContinuousParameterRanges": [X_RANGE]},
        "RandomSeed": 7,
    }
    return standard | changes


def limits(jobs: int, *, parallel: int = 3, **more: int) -> dict[str, int]:
    return {"MaxNumberOfTrainingJobs": jobs, "MaxParallelTrainingJobs": parallel, **more}


def definition(static: Mapping[str, str] | None = None, **changes: Any) -> dict[str, Any]:
    standard = {
        "AlgorithmSpecification": {
            "TrainingImage": IMAGE,
            "TrainingInputMode": "File",
            "MetricDefinitions": [{"Name": "score", "Regex": "score=([-0-9.]+);"}],
        },
        "RoleArn": ROLE,
        "StaticHyperParameters": dict(static or {}),
        "OutputDataConfig": {"S3OutputPath": "s3://bucket/out"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 5},
        "StoppingCondition": {"MaxRuntimeInSeconds": 600},
    }
    return standard | changes


def start(sagemaker: Any, name: str, **request: Any) -> None:
    request.setdefault("HyperParameterTuningJobConfig", config())
    request.setdefault("TrainingJobDefinition", definition())
    sagemaker.create_hyper_parameter_tuning_job(HyperParameterTuningJobName=name, **request)


def ended(sagemaker: Any, name: str, *, seconds: float = 60) -> dict[str, Any]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
        if found["HyperParameterTuningJobStatus"] in ENDED:
            return dict(found)
        time.sleep(0.05)
    raise AssertionError(f"{name} did not end: {found}")


def children(sagemaker: Any, name: str, **more: Any) -> list[dict[str, Any]]:
    answer = sagemaker.list_training_jobs_for_hyper_parameter_tuning_job(
        HyperParameterTuningJobName=name, **more
    )
    return list(answer["TrainingJobSummaries"])


def test_random_search_runs_real_jobs_and_finds_the_best(
    sagemaker: Any, aws: CachedClients, name: str
) -> None:
    static = {"epochs": "2"}
    start(sagemaker, name, TrainingJobDefinition=definition(static))
    found = ended(sagemaker, name)
    assert found["HyperParameterTuningJobStatus"] == "Completed"
    assert found["TrainingJobStatusCounters"]["Completed"] == 3
    assert found["ObjectiveStatusCounters"] == {"Succeeded": 3, "Pending": 0, "Failed": 0}
    rows = children(sagemaker, name)
    assert [row["TrainingJobName"][:-9] for row in rows] == [f"{name}-00{n}" for n in (1, 2, 3)]
    for row in rows:
        x = float(row["TunedHyperParameters"]["x"])
        assert 0.5 <= x <= 2
        final = row["FinalHyperParameterTuningJobObjectiveMetric"]
        assert final["Value"] == pytest.approx(2 * x)
    best = max(rows, key=lambda row: float(row["TunedHyperParameters"]["x"]))
    assert found["BestTrainingJob"]["TrainingJobName"] == best["TrainingJobName"]
    training = sagemaker.describe_training_job(TrainingJobName=best["TrainingJobName"])
    assert training["TuningJobArn"] == found["HyperParameterTuningJobArn"]
    assert training["HyperParameters"] == {
        "epochs": "2",
        "_tuning_objective_metric": "score",
        "x": best["TunedHyperParameters"]["x"],
    }
    assert training["ModelArtifacts"]["S3ModelArtifacts"].startswith("s3://bucket/out/")


def test_jobs_run_at_the_same_time_and_never_more_than_allowed(sagemaker: Any, name: str) -> None:
    start(
        sagemaker,
        name,
        HyperParameterTuningJobConfig=config(ResourceLimits=limits(4, parallel=2)),
        TrainingJobDefinition=definition({"pause": "0.6"}),
    )
    most = 0
    while (
        found := sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
    )["HyperParameterTuningJobStatus"] not in ENDED:
        most = max(most, found["TrainingJobStatusCounters"]["InProgress"])
        time.sleep(0.05)
    assert most == 2
    assert found["TrainingJobStatusCounters"]["Completed"] == 4


def test_a_grid_tries_every_combination_with_quoted_values_unchanged(
    sagemaker: Any, name: str
) -> None:
    ranges = [{"Name": "x", "Values": ['"1"', '"2"']}, {"Name": "kind", "Values": ["a", "b"]}]
    start(
        sagemaker,
        name,
        HyperParameterTuningJobConfig=config(
            Strategy="Grid",
            ParameterRanges={"CategoricalParameterRanges": ranges},
            ResourceLimits={"MaxParallelTrainingJobs": 4},
        ),
    )
    ended(sagemaker, name)
    tried = [tuple(row["TunedHyperParameters"].values()) for row in children(sagemaker, name)]
    assert tried == [('"1"', "a"), ('"1"', "b"), ('"2"', "a"), ('"2"', "b")]


def test_the_same_seed_draws_the_same_values(sagemaker: Any, name: str) -> None:
    tried = []
    for suffix in ("a", "b"):
        start(sagemaker, name + suffix)
        ended(sagemaker, name + suffix)
        rows = children(sagemaker, name + suffix)
        tried.append([row["TunedHyperParameters"] for row in rows])
    assert tried[0] == tried[1]


def test_hyperband_stops_jobs_that_fall_behind(sagemaker: Any, name: str) -> None:
    start(
        sagemaker,
        name,
        HyperParameterTuningJobConfig=config(
            Strategy="Hyperband",
            StrategyConfig={"HyperbandStrategyConfig": {"MinResource": 1, "MaxResource": 9}},
            ResourceLimits=limits(9, parallel=3),
        ),
        TrainingJobDefinition=definition({"epochs": "9", "pause": "0.12"}),
    )
    found = ended(sagemaker, name)
    rows = children(sagemaker, name)
    statuses = [row["TrainingJobStatus"] for row in rows]
    assert found["HyperParameterTuningJobStatus"] == "Completed"
    assert statuses.count("Stopped") >= 1
    assert statuses.count("Completed") >= 1
    assert found["BestTrainingJob"]["TrainingJobStatus"] == "Completed"


def test_early_stopping_ends_a_job_below_the_median(sagemaker: Any, name: str) -> None:
    values = ["2", "1.9", "1.8", "0.1"]
    start(
        sagemaker,
        name,
        HyperParameterTuningJobConfig=config(
            Strategy="Grid",
            ParameterRanges={"CategoricalParameterRanges": [{"Name": "x", "Values": values}]},
            ResourceLimits={"MaxParallelTrainingJobs": 1},
            TrainingJobEarlyStoppingType="Auto",
        ),
        TrainingJobDefinition=definition({"epochs": "4", "pause": "0.2"}),
    )
    ended(sagemaker, name)
    rows = children(sagemaker, name)
    assert [row["TrainingJobStatus"] for row in rows] == [*["Completed"] * 3, "Stopped"]
    assert rows[3]["ObjectiveStatus"] == "Succeeded"
    stopped = sagemaker.describe_training_job(TrainingJobName=rows[3]["TrainingJobName"])
    entered = [each["Status"] for each in stopped["SecondaryStatusTransitions"]]
    assert entered.count("Stopping") == 1


def test_hyperband_without_max_resource_is_refused(sagemaker: Any, name: str) -> None:
    with pytest.raises(ClientError, match="MaxResource") as caught:
        start(sagemaker, name, HyperParameterTuningJobConfig=config(Strategy="Hyperband"))
    assert caught.value.response["Error"]["Code"] == "ValidationException"


def test_a_target_that_is_reached_ends_the_search(sagemaker: Any, name: str) -> None:
    start(
        sagemaker,
        name,
        HyperParameterTuningJobConfig=config(
            Strategy="Bayesian",
            ResourceLimits=limits(50, parallel=1),
            TuningJobCompletionCriteria={"TargetObjectiveMetricValue": 0.1},
        ),
    )
    assert ended(sagemaker, name)["TrainingJobStatusCounters"]["Completed"] == 1


def test_stopping_a_tuning_job_stops_its_training_jobs(sagemaker: Any, name: str) -> None:
    start(sagemaker, name, TrainingJobDefinition=definition({"epochs": "90", "pause": "1"}))
    while not children(sagemaker, name):
        time.sleep(0.05)
    sagemaker.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
    assert ended(sagemaker, name)["HyperParameterTuningJobStatus"] == "Stopped"
    assert {row["TrainingJobStatus"] for row in children(sagemaker, name)} == {"Stopped"}


def test_a_tuning_job_whose_jobs_all_fail_has_failed(sagemaker: Any, name: str) -> None:
    start(sagemaker, name, TrainingJobDefinition=definition({"fail": "1"}))
    found = ended(sagemaker, name)
    assert found["HyperParameterTuningJobStatus"] == "Failed"
    assert found["FailureReason"].startswith("All training jobs failed")
    assert found["TrainingJobStatusCounters"]["NonRetryableError"] == 3
    assert "told to fail" in children(sagemaker, name)[0]["FailureReason"]
    assert "BestTrainingJob" not in found


def test_one_failed_job_among_others_does_not_fail_the_search(sagemaker: Any, name: str) -> None:
    ranges = {"CategoricalParameterRanges": [{"Name": "fail", "Values": ["", "1"]}]}
    start(
        sagemaker,
        name,
        HyperParameterTuningJobConfig=config(
            Strategy="Grid",
            ParameterRanges=ranges,
            ResourceLimits={"MaxParallelTrainingJobs": 2},
        ),
    )
    found = ended(sagemaker, name)
    assert found["HyperParameterTuningJobStatus"] == "Completed"
    assert found["TrainingJobStatusCounters"]["NonRetryableError"] == 1
    assert found["ObjectiveStatusCounters"] == {"Succeeded": 1, "Pending": 0, "Failed": 1}


def test_a_warm_start_knows_the_best_of_its_parents(sagemaker: Any, name: str) -> None:
    start(sagemaker, name, TrainingJobDefinition=definition({"epochs": "9"}))
    parent = ended(sagemaker, name)
    start(
        sagemaker,
        f"{name}w",
        WarmStartConfig={
            "ParentHyperParameterTuningJobs": [{"HyperParameterTuningJobName": name}],
            "WarmStartType": "TransferLearning",
        },
    )
    found = ended(sagemaker, f"{name}w")
    best = parent["BestTrainingJob"]["TrainingJobName"]
    assert found["OverallBestTrainingJob"]["TrainingJobName"] == best
    assert found["BestTrainingJob"]["TrainingJobName"] != best


def test_a_warm_start_from_nothing_is_refused(sagemaker: Any, name: str) -> None:
    parents = [{"HyperParameterTuningJobName": "nobody"}]
    with pytest.raises(ClientError, match="nobody"):
        start(
            sagemaker,
            name,
            WarmStartConfig={
                "ParentHyperParameterTuningJobs": parents,
                "WarmStartType": "TransferLearning",
            },
        )


def test_children_are_sorted_filtered_and_paged(sagemaker: Any, name: str) -> None:
    start(sagemaker, name)
    ended(sagemaker, name)
    by_value = children(sagemaker, name, SortBy="FinalObjectiveMetricValue", SortOrder="Descending")
    values = [row["FinalHyperParameterTuningJobObjectiveMetric"]["Value"] for row in by_value]
    assert values == sorted(values, reverse=True)
    assert children(sagemaker, name, StatusEquals="Failed") == []
    first = sagemaker.list_training_jobs_for_hyper_parameter_tuning_job(
        HyperParameterTuningJobName=name, MaxResults=2
    )
    rest = children(sagemaker, name, NextToken=first["NextToken"])
    assert (len(first["TrainingJobSummaries"]), len(rest)) == (2, 1)
    listed = sagemaker.list_hyper_parameter_tuning_jobs(NameContains=name)
    rows = listed["HyperParameterTuningJobSummaries"]
    assert [row["HyperParameterTuningJobName"] for row in rows] == [name]


def test_the_form_of_machines_that_the_sdk_sends_is_understood(sagemaker: Any, name: str) -> None:
    machines = {"InstanceType": "ml.c5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 9}
    request = definition(HyperParameterTuningResourceConfig=machines)
    del request["ResourceConfig"]
    one = config(ResourceLimits=limits(1, parallel=1))
    start(sagemaker, name, HyperParameterTuningJobConfig=one, TrainingJobDefinition=request)
    best = ended(sagemaker, name)["BestTrainingJob"]["TrainingJobName"]
    described = sagemaker.describe_training_job(TrainingJobName=best)
    assert described["ResourceConfig"] == machines


def test_a_name_can_be_used_once(sagemaker: Any, name: str) -> None:
    start(sagemaker, name)
    with pytest.raises(ClientError) as caught:
        start(sagemaker, name)
    assert caught.value.response["Error"]["Code"] == "ResourceInUse"
    ended(sagemaker, name)


def test_an_unknown_tuning_job_is_not_found(sagemaker: Any) -> None:
    with pytest.raises(sagemaker.exceptions.ResourceNotFound):
        sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName="nobody")


def test_what_is_not_executed_is_refused_in_words(sagemaker: Any, name: str) -> None:
    objective = {"Type": "Maximize", "MetricName": "score"}
    several = [
        definition(
            DefinitionName=each,
            TuningObjective=objective,
            HyperParameterRanges={"ContinuousParameterRanges": [X_RANGE]},
        )
        for each in ("one", "two")
    ]
    with pytest.raises(ClientError, match="not executed in the rehearsal"):
        sagemaker.create_hyper_parameter_tuning_job(
            HyperParameterTuningJobName=name,
            HyperParameterTuningJobConfig={"Strategy": "Random", "ResourceLimits": limits(3)},
            TrainingJobDefinitions=several,
        )


def test_jobs_that_are_not_executed_are_refused_before_the_search(
    sagemaker: Any, name: str
) -> None:
    piped = {"TrainingImage": IMAGE, "TrainingInputMode": "Pipe"}
    metrics = definition()["AlgorithmSpecification"]["MetricDefinitions"]
    source = {"S3DataType": "S3Prefix", "S3Uri": "s3://bucket/in/"}
    channel = {"ChannelName": "training", "DataSource": {"S3DataSource": source}}
    with pytest.raises(ClientError, match="Pipe mode"):
        start(
            sagemaker,
            name,
            TrainingJobDefinition=definition(
                AlgorithmSpecification=piped | {"MetricDefinitions": metrics},
                InputDataConfig=[channel],
            ),
        )


def test_the_model_of_the_best_job_is_in_its_place(
    sagemaker: Any, aws: CachedClients, name: str, tmp_path: Path
) -> None:
    one = config(ResourceLimits=limits(1, parallel=1))
    start(sagemaker, name, HyperParameterTuningJobConfig=one)
    best = ended(sagemaker, name)["BestTrainingJob"]
    described = sagemaker.describe_training_job(TrainingJobName=best["TrainingJobName"])
    uri = described["ModelArtifacts"]["S3ModelArtifacts"]
    aws.client("s3").download_file("bucket", uri.removeprefix("s3://bucket/"), tmp_path / "m.tgz")
    import tarfile

    with tarfile.open(tmp_path / "m.tgz") as archive:
        member = archive.extractfile("given.json")
        assert member is not None
        given = json.loads(member.read())
    assert given["x"] == best["TunedHyperParameters"]["x"]
