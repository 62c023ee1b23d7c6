"""SageMaker's rules beyond its service model: each is broken once, and a good request is not."""

from copy import deepcopy
from typing import Any

import pytest

from darkroom.backends.sagemaker.request_rules import problems
from emulated import BUCKET, ROLE, channel, training_request


def _messages(operation: str, request: dict[str, Any]) -> str:
    return "\n".join(problem.message for problem in problems(operation, request))


def _with(request: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    changed = deepcopy(request)
    *outer, last = path.split(".")
    place = changed
    for name in outer:
        place = place.setdefault(name, {})
    place[last] = value
    return changed


TRAINING = training_request("good")
LEARNING_RATE = {"Name": "learning_rate", "MinValue": "0.001", "MaxValue": "0.1"}
TUNING: dict[str, Any] = {
    "HyperParameterTuningJobName": "search",
    "HyperParameterTuningJobConfig": {
        "Strategy": "Bayesian",
        "ResourceLimits": {"MaxNumberOfTrainingJobs": 4, "MaxParallelTrainingJobs": 2},
        "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "accuracy"},
        "ParameterRanges": {"ContinuousParameterRanges": [LEARNING_RATE]},
    },
    "TrainingJobDefinition": {
        "AlgorithmSpecification": {
            "TrainingImage": "image",
            "TrainingInputMode": "File",
            "MetricDefinitions": [{"Name": "accuracy", "Regex": "accuracy=(.*)"}],
        },
        "RoleArn": ROLE,
        "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/out"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
    },
}
CONFIG: dict[str, Any] = {
    "EndpointConfigName": "config",
    "ProductionVariants": [
        {
            "VariantName": "all",
            "ModelName": "model",
            "InstanceType": "ml.m5.large",
            "InitialInstanceCount": 1,
        }
    ],
}
SERVERLESS: dict[str, Any] = {
    "EndpointConfigName": "config",
    "ProductionVariants": [
        {
            "VariantName": "all",
            "ModelName": "model",
            "ServerlessConfig": {"MemorySizeInMB": 2048, "MaxConcurrency": 5},
        }
    ],
}
MODEL: dict[str, Any] = {
    "ModelName": "model",
    "ExecutionRoleArn": ROLE,
    "PrimaryContainer": {"Image": "image", "ModelDataUrl": f"s3://{BUCKET}/model.tar.gz"},
}
UPDATE: dict[str, Any] = {
    "EndpointName": "endpoint",
    "EndpointConfigName": "config",
    "DeploymentConfig": {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": {
                "Type": "CANARY",
                "WaitIntervalInSeconds": 60,
                "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 10},
            }
        }
    },
}
ROUTING = "DeploymentConfig.BlueGreenUpdatePolicy.TrafficRoutingConfiguration"
TUNED = "HyperParameterTuningJobConfig"
RANGES = f"{TUNED}.ParameterRanges"


@pytest.mark.parametrize(
    ("operation", "request_"),
    [
        ("CreateTrainingJob", TRAINING),
        ("CreateHyperParameterTuningJob", TUNING),
        ("CreateEndpointConfig", CONFIG),
        ("CreateEndpointConfig", SERVERLESS),
        ("CreateModel", MODEL),
        ("UpdateEndpoint", UPDATE),
        ("DescribeTrainingJob", {"TrainingJobName": "good"}),
    ],
)
def test_a_good_request_breaks_no_rule(operation: str, request_: dict[str, Any]) -> None:
    assert problems(operation, request_) == []


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("EnableManagedSpotTraining", True, "Invalid MaxWaitTimeInSeconds"),
        ("StoppingCondition.MaxWaitTimeInSeconds", 900, "only for managed spot training"),
        ("RoleArn", "arn:aws:iam::1:role/x", "Invalid role ARN"),
        ("RoleArn", "arn:aws:iam::123456789012:user/x", "Invalid role ARN"),
        ("OutputDataConfig.S3OutputPath", "s3://Bad_Bucket/x", "no name of a bucket"),
        ("OutputDataConfig.S3OutputPath", "/local/path", "must begin with s3://"),
        ("Tags", [{"Key": "aws:x", "Value": ""}], "AWS's own"),
        ("Tags", [{"Key": "a", "Value": ""}] * 2, "Duplicate tag keys"),
        ("Tags", [{"Key": str(n), "Value": ""} for n in range(51)], "51 tags"),
        ("InputDataConfig", [channel("a", "s3://abc/x")] * 2, "must be unique"),
        (
            "InputDataConfig",
            [channel("a", "s3://abc/x", S3DataType="ManifestFile") | {"InputMode": "FastFile"}],
            "S3Prefix only",
        ),
        ("HyperParameters", {str(n): "" for n in range(101)}, "may have 100"),
        ("AlgorithmSpecification.AlgorithmName", "both", "either TrainingImage or AlgorithmName"),
        ("AlgorithmSpecification.MetricDefinitions", [{"Name": "a", "Regex": "("}], "no regular"),
        ("ResourceConfig.InstanceCount", 0, "InstanceCount of at least 1"),
        ("VpcConfig", {"Subnets": ["a", "a"], "SecurityGroupIds": ["b"]}, "names 'a' twice"),
    ],
)
def test_training_rules(path: str, value: object, told: str) -> None:
    assert told in _messages("CreateTrainingJob", _with(TRAINING, path, value))


def test_a_warm_pool_of_spot_machines_is_refused() -> None:
    request = _with(TRAINING, "EnableManagedSpotTraining", True)
    request = _with(request, "ResourceConfig.KeepAlivePeriodInSeconds", 60)
    assert "warm pool" in _messages("CreateTrainingJob", request)


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (f"{TUNED}.ResourceLimits", {"MaxParallelTrainingJobs": 1}, "is required with"),
        (
            f"{TUNED}.ResourceLimits",
            {"MaxNumberOfTrainingJobs": 1, "MaxParallelTrainingJobs": 2},
            "is more than MaxNumberOfTrainingJobs",
        ),
        (f"{TUNED}.Strategy", "Grid", "categorical parameters only"),
        (
            f"{TUNED}.HyperParameterTuningJobObjective",
            {"Type": "Maximize", "MetricName": "f1"},
            "'f1' is not among",
        ),
        (
            f"{RANGES}.IntegerParameterRanges",
            [{"Name": "epochs", "MinValue": "5", "MaxValue": "2"}],
            "MinValue 5 is greater",
        ),
        (
            f"{RANGES}.ContinuousParameterRanges",
            [{**LEARNING_RATE, "MinValue": "0", "ScalingType": "Logarithmic"}],
            "MinValue above 0",
        ),
        (f"{RANGES}.ContinuousParameterRanges", [LEARNING_RATE] * 2, "is there twice"),
        (f"{RANGES}.ContinuousParameterRanges", [], "nothing to tune"),
        (
            "TrainingJobDefinition.StaticHyperParameters",
            {"learning_rate": "1"},
            "both static and tuned",
        ),
        (
            "WarmStartConfig.ParentHyperParameterTuningJobs",
            [{"HyperParameterTuningJobName": f"p{n}"} for n in range(6)],
            "6 parents",
        ),
        ("TrainingJobDefinition.EnableManagedSpotTraining", True, "MaxWaitTimeInSeconds"),
    ],
)
def test_tuning_rules(path: str, value: object, told: str) -> None:
    assert told in _messages("CreateHyperParameterTuningJob", _with(TUNING, path, value))


def test_hyperband_excludes_early_stopping() -> None:
    request = _with(TUNING, f"{TUNED}.Strategy", "Hyperband")
    assert problems("CreateHyperParameterTuningJob", request) == []
    request = _with(request, f"{TUNED}.TrainingJobEarlyStoppingType", "Auto")
    assert "Hyperband" in _messages("CreateHyperParameterTuningJob", request)


def test_grid_counts_its_combinations() -> None:
    ranges = [{"Name": "optimizer", "Values": ["sgd", "adam"]}]
    request = _with(TUNING, RANGES, {"CategoricalParameterRanges": ranges})
    request = _with(request, f"{TUNED}.Strategy", "Grid")
    assert "combinations (2)" in _messages("CreateHyperParameterTuningJob", request)
    del request[TUNED]["ResourceLimits"]["MaxNumberOfTrainingJobs"]
    assert problems("CreateHyperParameterTuningJob", request) == []


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ((30, 25), ""),
        ((30, 26), "the strategy Grid makes 780 training jobs of these ranges, and 750 are"),
        ((31,), "the parameter 'p0' has 31 values, and 30 are allowed"),
    ],
)
def test_a_grid_is_limited_though_its_jobs_are_not_counted(
    counts: tuple[int, ...], told: str
) -> None:
    ranges = [
        {"Name": f"p{place}", "Values": [str(number) for number in range(count)]}
        for place, count in enumerate(counts)
    ]
    request = _with(TUNING, RANGES, {"CategoricalParameterRanges": ranges})
    request = _with(request, f"{TUNED}.Strategy", "Grid")
    del request[TUNED]["ResourceLimits"]["MaxNumberOfTrainingJobs"]
    assert _messages("CreateHyperParameterTuningJob", request).startswith(told)
    assert bool(problems("CreateHyperParameterTuningJob", request)) is bool(told)


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("VpcConfig", {"Subnets": ["s"], "SecurityGroupIds": ["g"]}, "takes no VpcConfig"),
        ("DataCaptureConfig.EnableCapture", True, "takes no DataCaptureConfig"),
        ("ProductionVariants", SERVERLESS["ProductionVariants"] * 2, "one variant"),
        (
            "ProductionVariants",
            [{"VariantName": "a", "ServerlessConfig": {"MemorySizeInMB": 1500}}],
            "MemorySizeInMB 1500",
        ),
    ],
)
def test_serverless_rules(path: str, value: object, told: str) -> None:
    assert told in _messages("CreateEndpointConfig", _with(SERVERLESS, path, value))


TOLD = {"OutputConfig": {"S3OutputPath": f"s3://{BUCKET}/out"}}


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"OutputConfig": {}}, "needs S3OutputPath"),
        (
            {
                "OutputConfig": {
                    **TOLD["OutputConfig"],
                    "NotificationConfig": {
                        "IncludeInferenceResponseIn": ["SUCCESS_NOTIFICATION_TOPIC"]
                    },
                }
            },
            "needs SuccessTopic",
        ),
    ],
)
def test_asynchronous_rules(config: dict[str, Any], told: str) -> None:
    assert told in _messages("CreateEndpointConfig", _with(CONFIG, "AsyncInferenceConfig", config))


def test_an_asynchronous_endpoint_is_neither_serverless_nor_shadowed() -> None:
    request = _with(CONFIG, "AsyncInferenceConfig", TOLD)
    assert problems("CreateEndpointConfig", request) == []
    shadowed = _with(request, "ShadowProductionVariants", [{"VariantName": "b"}])
    assert "no ShadowProductionVariants" in _messages("CreateEndpointConfig", shadowed)
    serverless = _with(SERVERLESS, "AsyncInferenceConfig", TOLD)
    assert "takes no AsyncInferenceConfig" in _messages("CreateEndpointConfig", serverless)


def test_a_variant_needs_machines() -> None:
    request = _with(CONFIG, "ProductionVariants", [{"VariantName": "a", "ModelName": "m"}])
    assert "needs InstanceType" in _messages("CreateEndpointConfig", request)


@pytest.mark.parametrize(
    ("routing", "told"),
    [
        ({"Type": "CANARY", "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 51}}, "51 %"),
        ({"Type": "LINEAR", "LinearStepSize": {"Type": "CAPACITY_PERCENT", "Value": 5}}, "5 %"),
        ({"Type": "CANARY"}, "needs CanarySize"),
        ({"Type": "ALL_AT_ONCE", "CanarySize": {"Value": 1}}, "takes no CanarySize"),
    ],
)
def test_rollout_rules(routing: dict[str, Any], told: str) -> None:
    assert told in _messages("UpdateEndpoint", _with(UPDATE, ROUTING, routing))


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("Containers", [{"Image": "image"}], "either PrimaryContainer or Containers"),
        ("PrimaryContainer.ModelDataUrl", f"s3://{BUCKET}/model.zip", "ends in .tar.gz"),
        ("PrimaryContainer.Image", "", "needs an Image"),
        ("PrimaryContainer.Mode", "MultiModel", "must be a prefix, no archive"),
        ("PrimaryContainer", {"Image": "i", "Mode": "MultiModel"}, "needs ModelDataUrl"),
        ("PrimaryContainer.MultiModelConfig", {"ModelCacheSetting": "Enabled"}, "needs Mode"),
    ],
)
def test_model_rules(path: str, value: object, told: str) -> None:
    assert told in _messages("CreateModel", _with(MODEL, path, value))


def test_the_payload_of_a_transform_is_bounded() -> None:
    request = {"MaxPayloadInMB": 60, "MaxConcurrentTransforms": 2}
    assert "must not be more than 100" in _messages("CreateTransformJob", request)


def test_names_of_processing_inputs_are_unique() -> None:
    request = {"ProcessingInputs": [{"InputName": "a"}, {"InputName": "a"}]}
    assert "'a' is there twice" in _messages("CreateProcessingJob", request)
