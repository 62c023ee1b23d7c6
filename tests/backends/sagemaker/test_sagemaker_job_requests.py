"""What is sent to train and to tune."""

import json
import re
from typing import Any

import pytest

from darkroom.backends.sagemaker.request_rules import problems as broken_rules
from darkroom.backends.sagemaker.resources import JobIdentity
from darkroom.backends.sagemaker.session import SageMakerContext
from darkroom.backends.sagemaker.training.job import training_request
from darkroom.backends.sagemaker.tuning.job import tuning_request, typed_values
from darkroom.base.errors import UserError
from darkroom.config import Hyperparameters
from darkroom.config.debugging import Debugging, RecordingConfig
from darkroom.config.sagemaker import SageMakerConfig
from darkroom.config.tuning import (
    Choices,
    FloatChoices,
    FloatRange,
    IntRange,
    SearchSpace,
    TuningConfig,
    grid,
)
from darkroom.telemetry.epochs import EpochMetrics
from darkroom.training.hyperparameters import from_strings
from golden_requests import assert_golden
from rehearsal.tuning.space import read_space

DATASET = f"s3://bucket/darkroom/datasets/{'0' * 64}"
HYPERPARAMETERS = Hyperparameters(learning_rate=3e-4, epochs=9, weights="none")
DEBUGGING = Debugging(recording=RecordingConfig(every_steps=50))
SPOT = {"training": {"spot": True, "max_runtime_seconds": 3600}}
VPC = {
    "network": {
        "subnets": ["subnet-1a2b", "subnet-3c4d"],
        "security_group_ids": ["sg-1a2b"],
        "isolation": True,
        "encrypt_traffic": True,
    },
    "kms_key": "arn:aws:kms:eu-west-1:123456789012:key/one",
    "environment": {"OMP_NUM_THREADS": "4"},
    "tags": {"team": "photos"},
}
SHARDED = {
    "training": {
        "instance_type": "ml.g5.xlarge",
        "instance_count": 3,
        "distribution": "ShardedByS3Key",
        "input_mode": "FastFile",
        "keep_alive_seconds": 1800,
        "volume_gb": 100,
    }
}


def site(**config: Any) -> SageMakerContext:
    return SageMakerContext(
        region="eu-west-1",
        role="arn:aws:iam::123456789012:role/darkroom/jobs",
        image="123456789012.dkr.ecr.eu-west-1.amazonaws.com/darkroom:1.0",
        root="s3://bucket/darkroom",
        config=SageMakerConfig.model_validate(config),
        run="digits-2026",
    )


def training(weights: str = "", **config: Any) -> dict[str, Any]:
    identity = JobIdentity("training", "0123456789abcdef")
    return training_request(
        identity.name(1),
        identity=identity,
        dataset=DATASET,
        hyperparameters=HYPERPARAMETERS,
        debugging=DEBUGGING,
        site=site(**config),
        weights=weights,
    )


def tuning(config: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    identity = JobIdentity("tuning", "0123456789ab")
    return tuning_request(
        identity.name(1),
        identity=identity,
        dataset=DATASET,
        hyperparameters=HYPERPARAMETERS,
        tuning=TuningConfig.model_validate(settings),
        debugging=DEBUGGING,
        site=site(**(config or {})),
    )


@pytest.mark.parametrize(
    ("name", "config"),
    [("plain", {}), ("spot", SPOT), ("vpc_kms", VPC), ("sharded", SHARDED)],
)
def test_a_training_job(name: str, config: dict[str, Any]) -> None:
    request = training(**config)
    operation = "CreateTrainingJob"
    assert_golden(request, operation=f"sagemaker:{operation}", name=f"training_{name}")
    assert broken_rules(operation, request) == []


def test_a_training_job_from_weights_on_s3() -> None:
    request = training(weights="s3://bucket/darkroom/weights/abc/")
    (channel,) = [c for c in request["InputDataConfig"] if c["ChannelName"] == "weights"]
    assert channel["DataSource"]["S3DataSource"]["S3Uri"] == "s3://bucket/darkroom/weights/abc/"
    assert channel["InputMode"] == "File"


def test_only_the_training_shards_are_shared_out() -> None:
    distributions = {
        channel["ChannelName"]: channel["DataSource"]["S3DataSource"]["S3DataDistributionType"]
        for channel in training(**SHARDED)["InputDataConfig"]
    }
    assert distributions == {
        "manifest": "FullyReplicated",
        "shards": "ShardedByS3Key",
        "evaluation_shards": "FullyReplicated",
    }


def test_hyperparameters_arrive_as_they_were() -> None:
    assert from_strings(training()["HyperParameters"]) == HYPERPARAMETERS


def test_debugger_and_profiler_are_off_unless_wanted() -> None:
    request = training()
    assert "DebugHookConfig" not in request
    assert request["ProfilerConfig"] == {"DisableProfiler": True}
    wanted = training(training={"managed_debugger": True})
    assert wanted["DebugHookConfig"]["S3OutputPath"].startswith("s3://bucket/darkroom/jobs/")
    assert wanted["ProfilerConfig"]["DisableProfiler"] is False
    assert broken_rules("CreateTrainingJob", wanted) == []


def test_every_metric_is_found_in_what_training_prints_and_no_other() -> None:
    epoch = EpochMetrics(
        epoch=3,
        learning_rate=1.5e-05,
        train_loss=0.25,
        train_accuracy=0.5,
        validation={
            "accuracy": 0.11,
            "balanced_accuracy": 0.12,
            "f1_macro": 0.13,
            "precision_macro": 0.14,
            "recall_macro": 0.15,
            "log_loss": 1.6,
            "calibration_error": 0.17,
        },
        images_per_second=1234.5,
        seconds=60,
    )
    found = {}
    for metric in training()["AlgorithmSpecification"]["MetricDefinitions"]:
        (value,) = re.findall(metric["Regex"], epoch.log_line())
        found[metric["Name"]] = float(value)
    assert found == {
        "learning_rate": 1.5e-05,
        "train_loss": 0.25,
        "train_accuracy": 0.5,
        **{f"validation_{name}": value for name, value in epoch.validation.items()},
        "images_per_second": 1234.5,
        "seconds": 60,
    }


GRID = {
    "learning_rate": FloatChoices(choices=(0.001, 1e-05, 0.1 + 0.2)),
    "weight_decay": FloatChoices(choices=(0.0, 1.0)),
    "batch_size": Choices(choices=(16, 32)),
    "epochs": IntRange(low=3, high=5),
}


@pytest.mark.parametrize(
    ("name", "settings", "config"),
    [
        ("bayesian", {"trials": 8, "pruning": "none"}, {}),
        ("random", {"trials": 8, "strategy": "random", "timeout_seconds": 7200.5}, SPOT),
        ("grid", {"strategy": "grid", "search_space": GRID}, VPC),
        (
            "hyperband",
            {
                "trials": 12,
                "strategy": "hyperband",
                "objective": "log_loss",
                "search_space": {"epochs": None},
            },
            SHARDED,
        ),
        (
            "criteria",
            {"trials": 20, "target_value": 0.95, "patience_trials": 5},
            {
                "tuning": {
                    "parallel_jobs": 4,
                    "stop_when_converged": True,
                    "warm_start_from": ["darkroom-tuning-000000000000-1"],
                }
            },
        ),
    ],
)
def test_a_tuning_job(name: str, settings: dict[str, Any], config: dict[str, Any]) -> None:
    request = tuning(config, **settings)
    operation = "CreateHyperParameterTuningJob"
    assert_golden(request, operation=f"sagemaker:{operation}", name=f"tuning_{name}")
    assert broken_rules(operation, request) == []


@pytest.mark.parametrize("quoted", [False, True])
def test_a_grid_has_the_same_trials_here_and_there(quoted: bool) -> None:
    """The emulator makes the combinations of the request; jobs read strings, maybe quoted."""
    request = tuning(strategy="grid", search_space=GRID)
    fixed = request["TrainingJobDefinition"]["StaticHyperParameters"]
    there = []
    for strings in read_space(request["HyperParameterTuningJobConfig"]["ParameterRanges"]).grid():
        tuned = {name: json.dumps(text) if quoted else text for name, text in strings.items()}
        there.append(typed_values(tuned))
        assert from_strings({**fixed, **tuned}) == HYPERPARAMETERS.replace(**there[-1])
    here = grid(SearchSpace.model_validate(GRID))
    assert repr(there) == repr([{name: one[name] for name in there[0]} for one in here])
    assert len(here) == 3 * 2 * 2 * 3


@pytest.mark.parametrize("strategy", ["tpe", "random", "hyperband"])
def test_choices_of_fractions_are_categories_for_every_strategy(strategy: str) -> None:
    choices = FloatChoices(choices=(0.001, 0.01))
    request = tuning(strategy=strategy, search_space={"learning_rate": choices, "epochs": None})
    ranges = request["HyperParameterTuningJobConfig"]["ParameterRanges"]
    assert {"Name": "learning_rate", "Values": ["0.001", "0.01"]} in ranges[
        "CategoricalParameterRanges"
    ]
    assert broken_rules("CreateHyperParameterTuningJob", request) == []


def test_what_is_searched_is_not_fixed_as_well() -> None:
    request = tuning(search_space={"weight_decay": None})
    fixed = request["TrainingJobDefinition"]["StaticHyperParameters"]
    ranges = request["HyperParameterTuningJobConfig"]["ParameterRanges"]
    searched = {each["Name"] for kind in ranges.values() for each in kind}
    assert searched == {"learning_rate", "batch_size", "epochs"}
    assert {*fixed} == {*Hyperparameters.model_fields, "debugging"} - searched
    assert fixed["weight_decay"] == "0.01"


def test_a_range_of_one_value_is_a_choice_of_one() -> None:
    request = tuning(search_space={"epochs": IntRange(low=4, high=4)})
    ranges = request["HyperParameterTuningJobConfig"]["ParameterRanges"]
    assert {"Name": "epochs", "Values": ["4"]} in ranges["CategoricalParameterRanges"]


def test_scaling_follows_the_range() -> None:
    space = SearchSpace(
        learning_rate=FloatRange(low=1e-5, high=1e-2, log=True),
        weight_decay=FloatRange(low=0.0, high=0.1),
        epochs=IntRange(low=3, high=10, log=True),
    )
    ranges = tuning(search_space=space)["HyperParameterTuningJobConfig"]["ParameterRanges"]
    assert ranges["ContinuousParameterRanges"] == [
        {
            "Name": "learning_rate",
            "MinValue": "1e-05",
            "MaxValue": "0.01",
            "ScalingType": "Logarithmic",
        },
        {"Name": "weight_decay", "MinValue": "0.0", "MaxValue": "0.1", "ScalingType": "Linear"},
    ]
    assert ranges["IntegerParameterRanges"] == [
        {"Name": "epochs", "MinValue": "3", "MaxValue": "10", "ScalingType": "Logarithmic"}
    ]


def test_no_more_jobs_run_at_once_than_there_are() -> None:
    request = tuning({"tuning": {"parallel_jobs": 10}}, trials=3)
    limits = request["HyperParameterTuningJobConfig"]["ResourceLimits"]
    assert limits == {"MaxNumberOfTrainingJobs": 3, "MaxParallelTrainingJobs": 3}


def test_a_grid_with_a_continuous_dimension_is_refused() -> None:
    with pytest.raises(UserError, match="give those to try"):
        tuning(strategy="grid")


def test_machines_with_disks_of_their_own_train_without_a_key_for_them() -> None:
    request = training(training={"instance_type": "ml.g5.xlarge"}, kms_key=VPC["kms_key"])
    assert "VolumeKmsKeyId" not in request["ResourceConfig"]
    assert request["OutputDataConfig"]["KmsKeyId"] == VPC["kms_key"]
