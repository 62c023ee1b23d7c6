"""The emulator refuses what AWS refuses, in AWS's words, and what it cannot execute."""

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from emulated import BUCKET, IMAGES, ROLE, channel, shell, spot, training_request
from rehearsal.emulator.server import Running, emulator


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with emulator(tmp_path_factory.mktemp("aws"), images=IMAGES) as running:
        running.client("s3").create_bucket(Bucket=BUCKET)
        yield running


@pytest.fixture(scope="module")
def sagemaker(running: Running) -> Any:
    return running.client("sagemaker")


def _refusal(call: Any, **request: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as refused:
        call(**request)
    error = refused.value.response["Error"]
    return error["Code"], error["Message"]


def test_a_name_that_does_not_match_is_refused_in_awss_words(sagemaker: Any) -> None:
    code, message = _refusal(sagemaker.create_training_job, **training_request("under_score"))
    assert code == "ValidationException"
    assert message == (
        "1 validation error detected: Value 'under_score' at 'trainingJobName' failed to satisfy "
        "constraint: Member must satisfy regular expression pattern: "
        "[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}"
    )


def test_all_errors_of_a_request_are_counted_and_told(sagemaker: Any) -> None:
    request = training_request("many", Environment={"LONG": "x" * 600})
    request["ResourceConfig"]["InstanceType"] = "ml.m5.enormous"
    request["InputDataConfig"] = [channel("a b", f"s3://{BUCKET}/in")]
    _, message = _refusal(sagemaker.create_training_job, **request)
    assert message.startswith("3 validation errors detected: ")
    assert "at 'resourceConfig.instanceType'" in message
    assert "Member must satisfy enum value set: [ml.m4.xlarge" in message
    assert "at 'inputDataConfig.1.member.channelName'" in message
    assert "Map value must satisfy constraint: [Member must have length less than" in message


def test_what_botocore_would_not_send_is_refused_as_well(running: Running) -> None:
    from rehearsal.emulator.errors import AwsError
    from rehearsal.emulator.validation import check_shape

    with pytest.raises(AwsError, match=r"Value null at 'trainingJobName'.*must not be null"):
        check_shape("sagemaker", "DescribeTrainingJob", {})
    with pytest.raises(AwsError, match=r"'trainingJob' failed .* Member is unknown"):
        check_shape("sagemaker", "StopTrainingJob", {"TrainingJobName": "a", "TrainingJob": 1})
    with pytest.raises(AwsError, match="SerializationException"):
        check_shape("sagemaker", "StopTrainingJob", {"TrainingJobName": 7})
    with pytest.raises(AwsError, match="greater than or equal to 1"):
        check_shape("sagemaker", "ListTrainingJobs", {"MaxResults": 0})
    with pytest.raises(AwsError, match="UnknownOperation"):
        check_shape("sagemaker", "CreateMiracle", {})


def test_rules_between_members_are_enforced(sagemaker: Any) -> None:
    request = spot(training_request("impatient"))
    request["StoppingCondition"] = {"MaxRuntimeInSeconds": 600}
    code, message = _refusal(sagemaker.create_training_job, **request)
    assert code == "ValidationException"
    assert message.startswith("Invalid MaxWaitTimeInSeconds")


def test_missing_buckets_are_refused_before_the_job_runs(sagemaker: Any) -> None:
    request = training_request("homeless", OutputDataConfig={"S3OutputPath": "s3://no-such-one/"})
    code, message = _refusal(sagemaker.create_training_job, **request)
    assert code == "ValidationException"
    assert "no-such-one" in message


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (
            {
                "DebugRuleConfigurations": [
                    {"RuleConfigurationName": "r", "RuleEvaluatorImage": "image"}
                ]
            },
            "Debugger rules",
        ),
        ({"CheckpointConfig": {"S3Uri": "s3://pictures/c", "LocalPath": "/data"}}, "/opt/ml"),
        ({"InputDataConfig": [channel("a", "s3://pictures/x") | {"InputMode": "Pipe"}]}, "Pipe"),
    ],
)
def test_training_that_cannot_be_executed_is_refused_in_so_many_words(
    sagemaker: Any, change: dict[str, Any], why: str
) -> None:
    request = training_request("impossible") | change
    code, message = _refusal(sagemaker.create_training_job, **request)
    assert code == "NotExecutedInRehearsal"
    assert why in message
    assert "On AWS it may work" in message


def test_neo_and_clarify_are_refused_where_moto_would_pretend(sagemaker: Any) -> None:
    code, _ = _refusal(
        sagemaker.create_compilation_job,
        CompilationJobName="neo",
        RoleArn=ROLE,
        OutputConfig={"S3OutputLocation": "s3://pictures/neo", "TargetDevice": "ml_c5"},
        StoppingCondition={"MaxRuntimeInSeconds": 60},
    )
    assert code == "NotExecutedInRehearsal"
    image = "306415355426.dkr.ecr.us-west-2.amazonaws.com/sagemaker-clarify-processing:1.0"
    cluster = {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 10}
    code, message = _refusal(
        sagemaker.create_processing_job,
        ProcessingJobName="clarify",
        RoleArn=ROLE,
        AppSpecification={"ImageUri": image, **shell("true")},
        ProcessingResources={"ClusterConfig": cluster},
    )
    assert code == "NotExecutedInRehearsal"
    assert "Clarify" in message


def test_no_operation_that_starts_something_reaches_motos_pretence() -> None:
    """Every Create, Start and Update that botocore knows is ours, a kept record, or refused."""
    import botocore.session

    from rehearsal.emulator.operations import operation_named
    from rehearsal.emulator.server import is_kept_by_moto

    model = botocore.session.Session().get_service_model("sagemaker")
    left = {
        name
        for name in model.operation_names
        if name.startswith(("Create", "Start", "Update", "Retry"))
        and operation_named(name) is None
        and is_kept_by_moto(name)
    }
    executed = ("Job", "Execution", "Schedule", "EndpointWeights", "Component", "Server", "App")
    assert not [n for n in left if any(part in n for part in executed) and "Trial" not in n]
    assert {"CreateModelPackageGroup", "CreateExperiment"} <= left | _ours()


def _ours() -> set[str]:
    from rehearsal.emulator.operations import operation_named

    names = ("CreateModelPackageGroup", "CreateExperiment")
    return {name for name in names if operation_named(name)}
