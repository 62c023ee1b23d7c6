"""Every member of every request is done, refused by name, or said to have no effect."""

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from emulated import BUCKET, IMAGES, ROLE, keys, shell, trained, training_request
from rehearsal.emulator import members, operations
from rehearsal.emulator.records import records
from rehearsal.emulator.server import Running, emulator

pytestmark = pytest.mark.slow

RUNTIME = ("InvokeEndpoint", "InvokeEndpointAsync")
PLACE = {"S3OutputPath": f"s3://{BUCKET}/debug"}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with emulator(tmp_path_factory.mktemp("members"), images=IMAGES) as running:
        running.client("s3").create_bucket(Bucket=BUCKET)
        yield running


def reached(shape: Any, *, seen: dict[str, set[str]]) -> None:
    """The shapes below one, and their members, where neither is refused or without effect."""
    if shape.type_name == "structure" and shape.name not in seen:
        seen[shape.name] = set(shape.members)
        for name, member in shape.members.items():
            key = f"{shape.name}.{name}"
            if key not in members.REFUSED and key not in members.NO_EFFECT:
                reached(member, seen=seen)
    elif shape.type_name == "list":
        reached(shape.member, seen=seen)
    elif shape.type_name == "map":
        reached(shape.value, seen=seen)


@pytest.fixture(scope="module")
def modelled() -> dict[str, set[str]]:
    """Members by shape, of all requests to operations that are executed."""
    seen: dict[str, set[str]] = {}
    assert operations.operation_named("CreateTrainingJob")  # by which all of them are loaded
    shapes = [members.shape_of(name) for name in sorted(operations._OPERATIONS)]
    shapes += [members.shape_of(name, service="sagemaker-runtime") for name in RUNTIME]
    for shape in shapes:
        if shape is not None:
            reached(shape, seen=seen)
    return seen


def test_each_member_of_botocores_model_has_one_class(modelled: dict[str, set[str]]) -> None:
    classes = {
        shape: {
            "done": set(members.DONE.get(shape, "").split()),
            "refused": {n for n in names if f"{shape}.{n}" in members.REFUSED},
            "no effect": {n for n in names if f"{shape}.{n}" in members.NO_EFFECT},
        }
        for shape, names in modelled.items()
    }
    known = {shape: set().union(*found.values()) for shape, found in classes.items()}
    unknown = {s: modelled[s] - known[s] for s in modelled if modelled[s] - known[s]}
    assert unknown == {}, "classify these in rehearsal/emulator/members.py"
    counts = {shape: sum(map(len, found.values())) for shape, found in classes.items()}
    assert counts == {shape: len(names) for shape, names in modelled.items()}


def test_a_member_that_the_table_does_not_know_is_refused(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = members.DONE["Tag"]
    monkeypatch.setitem(members.DONE, "Tag", known.replace("Value", ""))  # as if AWS had added it
    request = training_request("newer") | {"Tags": [{"Key": "a", "Value": "b"}]}
    with pytest.raises(ClientError, match=r"Tags\[0\]\.Value: AWS has it since") as refusal:
        running.client("sagemaker").create_training_job(**request)
    assert refusal.value.response["Error"]["Code"] == "NotExecutedInRehearsal"


def test_the_table_has_nothing_that_the_model_lacks(modelled: dict[str, set[str]]) -> None:
    listed = {f"{shape}.{n}" for shape, names in members.DONE.items() for n in names.split()}
    listed |= {*members.REFUSED, *members.NO_EFFECT, *members.INERT}
    assert listed <= {f"{shape}.{name}" for shape, names in modelled.items() for name in names}


@pytest.mark.parametrize(
    "member",
    [
        {"DebugRuleConfigurations": [{"RuleConfigurationName": "a", "RuleEvaluatorImage": "b"}]},
        {"ProfilerRuleConfigurations": [{"RuleConfigurationName": "a", "RuleEvaluatorImage": "b"}]},
        {"ProfilerConfig": {**PLACE, "ProfilingParameters": {"a": "b"}}},
        {"ProfilerConfig": {**PLACE, "ProfilingIntervalInMilliseconds": 500}},
        {"RemoteDebugConfig": {"EnableRemoteDebug": True}},
    ],
    ids=lambda member: next(iter(member)),
)
def test_what_would_be_missing_from_the_result_is_refused_by_name(
    running: Running, member: dict[str, Any]
) -> None:
    with pytest.raises(ClientError) as refused:
        running.client("sagemaker").create_training_job(**training_request("debugged", **member))
    error = refused.value.response["Error"]
    assert error["Code"] == "NotExecutedInRehearsal"
    assert next(iter(member)) in error["Message"]


def test_values_that_ask_for_nothing_are_taken(running: Running) -> None:
    more = {"RemoteDebugConfig": {"EnableRemoteDebug": False}, "DebugRuleConfigurations": []}
    more["ProfilerConfig"] = {"DisableProfiler": True}
    job = trained(running.client("sagemaker"), training_request("nothing", **more))
    assert job["TrainingJobStatus"] == "Completed"


def test_members_without_effect_are_listed_for_the_report(running: Running) -> None:
    trial = {"ExperimentConfig": {"TrialName": "a"}, "RetryStrategy": {"MaximumRetryAttempts": 2}}
    trained(running.client("sagemaker"), training_request("idle", **trial))
    found = "; ".join(records(running.state).without_effect)
    assert "ExperimentConfig (no trial component is made of the job)" in found
    assert "RetryStrategy" in found


def test_what_debuggers_hook_and_tensorboard_are_left_is_uploaded(running: Running) -> None:
    script = (
        "cd ${SAGEMAKER_BASE_DIR:-/opt/ml}; cat input/config/debughookconfig.json; "
        "mkdir -p output/tensors/events output/board; "
        "touch output/tensors/events/one output/board/two"
    )
    board = {**PLACE, "LocalPath": "/opt/ml/output/board"}
    more = {"DebugHookConfig": PLACE, "TensorBoardOutputConfig": board}
    job = trained(running.client("sagemaker"), training_request("hooked", script=script, **more))
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    found = keys(running.client("s3"), "debug/hooked/")
    assert "debug/hooked/debug-output/events/one" in found
    assert "debug/hooked/tensorboard-output/two" in found


def test_a_processing_job_without_a_machine_is_refused_and_records_are_still_told(
    running: Running,
) -> None:
    preference = [{"InstanceType": "ml.m5.large", "InstanceCount": 1}]
    cluster = {"VolumeSizeInGB": 5, "InstancePreferences": preference}
    with pytest.raises(ClientError, match="InstancePreferences"):
        running.client("sagemaker").create_processing_job(
            ProcessingJobName="no-machine",
            AppSpecification={"ImageUri": "image", **shell("true")},
            ProcessingResources={"ClusterConfig": cluster},
            RoleArn=ROLE,
        )
    assert records(running.state).mistakes == []


@pytest.mark.parametrize("second", ["a/b", "long/" + "x" * 300])
def test_keys_that_no_file_can_have_are_the_datas_fault(running: Running, second: str) -> None:
    s3 = running.client("s3")
    name = second.partition("/")[0]
    for key in ("a", second):
        s3.put_object(Bucket=BUCKET, Key=f"keys-{name}/{key}", Body=b"1")
    request = training_request(f"keys-{name}")
    source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/keys-{name}/"}
    request["InputDataConfig"] = [
        {"ChannelName": "training", "DataSource": {"S3DataSource": source}}
    ]
    reason = trained(running.client("sagemaker"), request)["FailureReason"]
    assert reason.startswith("ClientError: Data download failed")
