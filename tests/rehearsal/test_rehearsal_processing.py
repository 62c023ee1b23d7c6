"""Processing jobs and pipelines of the emulator really run."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from emulated import (
    BUCKET,
    IMAGES,
    ROLE,
    archive_of,
    keys,
    log_lines,
    shell,
    training_request,
    until,
)
from rehearsal.emulator.server import Running, emulator

pytestmark = pytest.mark.slow

INPUT, OUTPUT = "/opt/ml/processing/input/data", "/opt/ml/processing/output/data"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with emulator(tmp_path_factory.mktemp("aws"), images=IMAGES, stop_grace_seconds=2) as running:
        running.client("s3").create_bucket(Bucket=BUCKET)
        yield running


@pytest.fixture(scope="module")
def sagemaker(running: Running) -> Any:
    return running.client("sagemaker")


@pytest.fixture(scope="module")
def s3(running: Running) -> Any:
    return running.client("s3")


def _processing(script: str, **more: Any) -> dict[str, Any]:
    source = {"S3Uri": f"s3://{BUCKET}/in/", "LocalPath": INPUT, "S3DataType": "S3Prefix"}
    target = {"S3Uri": f"s3://{BUCKET}/done", "LocalPath": OUTPUT, "S3UploadMode": "EndOfJob"}
    cluster = {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 10}
    return {
        "RoleArn": ROLE,
        "AppSpecification": {"ImageUri": "image", **shell(script)},
        "ProcessingInputs": [
            {"InputName": "data", "S3Input": {**source, "S3InputMode": "File"}},
        ],
        "ProcessingOutputConfig": {"Outputs": [{"OutputName": "data", "S3Output": target}]},
        "ProcessingResources": {"ClusterConfig": cluster},
        **more,
    }


def _processed(sagemaker: Any, name: str, request: dict[str, Any]) -> dict[str, Any]:
    sagemaker.create_processing_job(ProcessingJobName=name, **request)
    return until(
        lambda: sagemaker.describe_processing_job(ProcessingJobName=name),
        lambda job: job["ProcessingJobStatus"] in ("Completed", "Failed", "Stopped"),
    )


def test_a_processing_job_reads_its_inputs_and_leaves_its_outputs(
    running: Running, sagemaker: Any, s3: Any
) -> None:
    s3.put_object(Bucket=BUCKET, Key="in/one.txt", Body=b"one")
    script = f"cp {INPUT}/one.txt {OUTPUT}/; cat /opt/ml/config/processingjobconfig.json"
    job = _processed(sagemaker, "copying", _processing(script))
    assert job["ProcessingJobStatus"] == "Completed", job.get("FailureReason")
    assert keys(s3, "done/") == ["done/one.txt"]
    (line,) = log_lines(
        running.client("logs"), "/aws/sagemaker/ProcessingJobs", prefix="copying/algo-1"
    )
    assert json.loads(line)["ProcessingJobName"] == "copying"
    (row,) = sagemaker.list_processing_jobs(NameContains="copy")["ProcessingJobSummaries"]
    assert row["ProcessingJobStatus"] == "Completed"
    with pytest.raises(ClientError, match="ResourceInUse"):
        _processed(sagemaker, "copying", _processing(script))


def test_a_failing_program_tells_its_message(sagemaker: Any, s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="in/one.txt", Body=b"one")
    script = "mkdir -p /opt/ml/output; printf 'no room' > /opt/ml/output/message; exit 9"
    job = _processed(sagemaker, "failing", _processing(script))
    assert job["FailureReason"] == "AlgorithmError: no room, exit code: 9"
    assert job["ExitMessage"] == "no room"


def test_a_processing_job_is_stopped(sagemaker: Any, s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="in/one.txt", Body=b"one")
    sagemaker.create_processing_job(ProcessingJobName="stopped", **_processing("exec sleep 300"))
    sagemaker.stop_processing_job(ProcessingJobName="stopped")
    job = until(
        lambda: sagemaker.describe_processing_job(ProcessingJobName="stopped"),
        lambda job: job["ProcessingJobStatus"] == "Stopped",
    )
    assert "ProcessingEndTime" in job


def test_a_pipeline_runs_its_steps_in_the_order_of_their_needs(
    running: Running, sagemaker: Any, s3: Any
) -> None:
    s3.put_object(Bucket=BUCKET, Key="in/one.txt", Body=b"one")
    training = _without_name(training_request("x", script="echo $RUN > /opt/ml/model/w"))
    arn = {"Get": "Execution.PipelineExecutionArn"}
    joined = {"Std:Join": {"On": "/", "Values": [f"s3://{BUCKET}", {"Get": "Parameters.place"}]}}
    training["Environment"] = {"RUN": arn}
    training["OutputDataConfig"] = {"S3OutputPath": joined}
    second = _processing(f"ls {INPUT} > {OUTPUT}/seen")
    second["ProcessingInputs"][0]["S3Input"]["S3Uri"] = {
        "Get": "Steps.train.ModelArtifacts.S3ModelArtifacts"
    }
    execution = _execute(
        sagemaker,
        "ordered",
        [
            {"Name": "look", "Type": "Processing", "Arguments": second},
            {"Name": "train", "Type": "Training", "Arguments": training},
        ],
        Parameters=[{"Name": "place", "Type": "String", "DefaultValue": "pipeline"}],
    )
    assert execution["PipelineExecutionStatus"] == "Succeeded", execution
    last, first = _steps(sagemaker, execution)
    assert (first["StepName"], last["StepName"]) == ("train", "look")
    name = first["Metadata"]["TrainingJob"]["Arn"].rpartition("/")[2]
    assert name.startswith(
        f"pipelines-{execution['PipelineExecutionArn'].rpartition('/')[2]}-train"
    )
    model = archive_of(s3, f"s3://{BUCKET}/pipeline/{name}/output/model.tar.gz")
    assert model == {"w": execution["PipelineExecutionArn"].encode() + b"\n"}
    assert s3.get_object(Bucket=BUCKET, Key="done/seen")["Body"].read() == b"model.tar.gz\n"


def test_after_a_failed_step_no_other_is_begun(sagemaker: Any) -> None:
    failing = _without_name(training_request("x", script="exit 4"))
    later = _without_name(training_request("x"))
    execution = _execute(
        sagemaker,
        "failing",
        [
            {"Name": "first", "Type": "Training", "Arguments": failing},
            {"Name": "later", "Type": "Training", "Arguments": later, "DependsOn": ["first"]},
        ],
    )
    assert execution["PipelineExecutionStatus"] == "Failed"
    assert "first" in execution["FailureReason"]
    (step,) = _steps(sagemaker, execution)
    assert step["StepStatus"] == "Failed"
    assert step["FailureReason"].endswith("exit code: 4")


def test_a_stopped_execution_stops_its_jobs(sagemaker: Any) -> None:
    forever = _without_name(training_request("x", script="exec sleep 300"))
    arn = _start(sagemaker, "long", [{"Name": "one", "Type": "Training", "Arguments": forever}])
    until(lambda: _steps(sagemaker, {"PipelineExecutionArn": arn}), bool)
    sagemaker.stop_pipeline_execution(PipelineExecutionArn=arn, ClientRequestToken="t" * 32)
    execution = _ended(sagemaker, arn)
    assert execution["PipelineExecutionStatus"] == "Stopped"
    (step,) = _steps(sagemaker, execution)
    assert step["StepStatus"] == "Stopped"


@pytest.mark.parametrize(
    ("definition", "why"),
    [
        ("no json", "Invalid pipeline definition"),
        ('{"Steps": [{"Name": "a", "DependsOn": ["b"]}]}', "is no step"),
        ('{"Steps": [{"Name": "a"}, {"Name": "a"}]}', "is there twice"),
        ('{"Steps": [{"Name": "a", "DependsOn": ["a"]}]}', "wait for each other"),
    ],
)
def test_a_definition_that_is_none_is_refused(sagemaker: Any, definition: str, why: str) -> None:
    with pytest.raises(ClientError, match=why):
        _create(sagemaker, "wrong", definition)


def test_steps_that_cannot_run_are_refused_at_the_start(sagemaker: Any) -> None:
    steps = [{"Name": "tune", "Type": "Tuning", "Arguments": {}}]
    with pytest.raises(ClientError, match=r"NotExecutedInRehearsal.*Tuning"):
        _start(sagemaker, "tuning", steps)


def _without_name(request: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in request.items() if name != "TrainingJobName"}


def _create(sagemaker: Any, name: str, definition: str) -> None:
    sagemaker.create_pipeline(
        PipelineName=name,
        PipelineDefinition=definition,
        RoleArn=ROLE,
        ClientRequestToken="t" * 32,
    )


def _start(sagemaker: Any, name: str, steps: list[dict[str, Any]], **more: Any) -> str:
    _create(sagemaker, name, json.dumps({"Version": "2020-12-01", "Steps": steps, **more}))
    answer = sagemaker.start_pipeline_execution(PipelineName=name, ClientRequestToken="t" * 32)
    return str(answer["PipelineExecutionArn"])


def _execute(sagemaker: Any, name: str, steps: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return _ended(sagemaker, _start(sagemaker, name, steps, **more))


def _ended(sagemaker: Any, arn: str) -> dict[str, Any]:
    return until(
        lambda: sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn),
        lambda found: found["PipelineExecutionStatus"] in ("Succeeded", "Failed", "Stopped"),
    )


def _steps(sagemaker: Any, execution: dict[str, Any]) -> list[dict[str, Any]]:
    arn = execution["PipelineExecutionArn"]
    answer = sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=arn)
    return list(answer["PipelineExecutionSteps"])
