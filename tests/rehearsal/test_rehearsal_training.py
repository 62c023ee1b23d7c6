"""Training jobs of the emulator really run, and end as on AWS."""

import gzip
import time
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from emulated import (
    BUCKET,
    archive_of,
    channel,
    ended_training,
    keys,
    log_lines,
    spot,
    trained,
    training_request,
    until,
)
from rehearsal.emulator.server import Running, emulator
from rehearsal.jobs import sandbox

pytestmark = pytest.mark.slow

LOGS = "/aws/sagemaker/TrainingJobs"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("emulator")
    image = folder / "image" / "bin"
    image.mkdir(parents=True)
    (image / "train").write_text('#!/bin/sh\necho "started as $0 with $1"\n')
    (image / "train").chmod(0o755)
    options: dict[str, Any] = {"stop_grace_seconds": 2, "checkpoint_seconds": 0.1}
    with emulator(folder / "aws", images={"image": folder / "image"}, **options) as running:
        running.client("s3").create_bucket(Bucket=BUCKET)
        yield running


@pytest.fixture(scope="module")
def sagemaker(running: Running) -> Any:
    return running.client("sagemaker")


@pytest.fixture(scope="module")
def s3(running: Running) -> Any:
    return running.client("s3")


def test_a_job_reads_its_channel_and_leaves_a_model_and_a_log(
    running: Running, sagemaker: Any, s3: Any
) -> None:
    s3.put_object(Bucket=BUCKET, Key="in/cats/one.txt", Body=b"meow")
    script = (
        "echo epoch=1 loss=0.5; echo epoch=2 loss=0.25; "
        "cp /opt/ml/input/data/training/cats/one.txt /opt/ml/model/; "
        "echo seen > /opt/ml/output/data/notes; cat /opt/ml/input/config/hyperparameters.json"
    )
    request = training_request("whole", script=script, HyperParameters={"epochs": "2"})
    request["InputDataConfig"] = [channel("training", f"s3://{BUCKET}/in")]
    request["AlgorithmSpecification"]["MetricDefinitions"] = [
        {"Name": "loss", "Regex": "loss=([0-9.]+)"}
    ]
    job = trained(sagemaker, request)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert [t["Status"] for t in job["SecondaryStatusTransitions"]] == [
        "Starting",
        "Downloading",
        "Training",
        "Uploading",
        "Completed",
    ]
    model = job["ModelArtifacts"]["S3ModelArtifacts"]
    assert model == f"s3://{BUCKET}/out/whole/output/model.tar.gz"
    assert archive_of(s3, model) == {"one.txt": b"meow"}
    output = archive_of(s3, model.replace("model.tar", "output.tar"))
    assert output == {"notes": b"seen\n"}
    (metric,) = job["FinalMetricDataList"]
    assert (metric["MetricName"], metric["Value"]) == ("loss", 0.25)
    lines = log_lines(running.client("logs"), LOGS, prefix="whole/algo-1-")
    assert lines == ["epoch=1 loss=0.5", "epoch=2 loss=0.25", '{"epochs": "2"}']


def test_a_failure_is_told_with_its_reason_and_exit_code(sagemaker: Any, s3: Any) -> None:
    script = "echo partial > /opt/ml/model/w; printf 'no pictures' > /opt/ml/output/failure; exit 3"
    job = trained(sagemaker, training_request("failing", script=script))
    assert job["TrainingJobStatus"] == job["SecondaryStatus"] == "Failed"
    assert job["FailureReason"] == "AlgorithmError: no pictures, exit code: 3"
    assert keys(s3, "out/failing/") == []


def test_a_long_reason_is_cut_where_sagemaker_cuts_it(sagemaker: Any) -> None:
    script = "head -c 5000 /dev/zero | tr '\\0' x > /opt/ml/output/failure; exit 1"
    job = trained(sagemaker, training_request("verbose", script=script))
    assert len(job["FailureReason"]) == 1024
    assert job["FailureReason"].endswith("xxx, exit code: 1")


def test_a_missing_prefix_fails_the_job_in_awss_words(sagemaker: Any) -> None:
    request = training_request("empty")
    request["InputDataConfig"] = [channel("training", f"s3://{BUCKET}/nowhere/")]
    reason = trained(sagemaker, request)["FailureReason"]
    assert reason.startswith("ClientError: Data download failed: No S3 objects found under S3 URL")


def test_a_stopped_job_gets_sigterm_and_keeps_its_model(
    running: Running, sagemaker: Any, s3: Any
) -> None:
    script = "trap 'echo saved > /opt/ml/model/w; exit 143' TERM; echo up; "
    script += "while :; do sleep 0.05; done"
    sagemaker.create_training_job(**training_request("stopped", script=script))
    _until_up(running, "stopped")
    sagemaker.stop_training_job(TrainingJobName="stopped")
    job = ended_training(sagemaker, "stopped")
    assert job["TrainingJobStatus"] == job["SecondaryStatus"] == "Stopped"
    assert archive_of(s3, job["ModelArtifacts"]["S3ModelArtifacts"]) == {"w": b"saved\n"}
    with pytest.raises(ClientError, match="ValidationException"):
        sagemaker.stop_training_job(TrainingJobName="stopped")


def test_a_job_that_ignores_sigterm_is_killed_after_the_grace(
    running: Running, sagemaker: Any
) -> None:
    script = "trap '' TERM; sleep 300 & echo up; while :; do sleep 0.05; done"
    sagemaker.create_training_job(**training_request("stubborn", script=script))
    _until_up(running, "stubborn")
    started = time.monotonic()
    sagemaker.stop_training_job(TrainingJobName="stubborn")
    assert ended_training(sagemaker, "stubborn")["TrainingJobStatus"] == "Stopped"
    assert 1.9 < time.monotonic() - started < 30


def test_max_runtime_stops_a_job(sagemaker: Any) -> None:
    request = training_request("endless", script="exec sleep 300")
    request["StoppingCondition"] = {"MaxRuntimeInSeconds": 1}
    job = trained(sagemaker, request)
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")


def test_an_interrupted_spot_job_goes_on_from_its_checkpoints(
    running: Running, sagemaker: Any, s3: Any
) -> None:
    script = (
        "cd /opt/ml/checkpoints; if [ -f one ]; then cat one > /opt/ml/model/w; rm one; exit 0; fi;"
        "echo first > one; echo gone > temporary; sleep 0.5; rm temporary; exec sleep 300"
    )
    uri = f"s3://{BUCKET}/checkpoints"
    request = spot(training_request("spot", script=script, CheckpointConfig={"S3Uri": uri}))
    _set_fault(running, name="spot_interruption", jobs="spot", after_seconds=1.5)
    job = trained(sagemaker, request)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    statuses = [t["Status"] for t in job["SecondaryStatusTransitions"]]
    assert statuses[2:6] == ["Training", "Interrupted", "Restarting", "Downloading"]
    assert archive_of(s3, job["ModelArtifacts"]["S3ModelArtifacts"]) == {"w": b"first\n"}
    assert keys(s3, "checkpoints") == []
    assert job["BillableTimeInSeconds"] <= job["TrainingTimeInSeconds"]


def test_each_host_has_its_share_and_knows_the_others(
    running: Running, sagemaker: Any, s3: Any
) -> None:
    for number in range(4):
        s3.put_object(Bucket=BUCKET, Key=f"shards/{number}.tar", Body=b"x")
    script = (
        "ls /opt/ml/input/data/training > /opt/ml/model/$HOSTNAME; getent hosts algo-2; "
        'grep -o \'"hosts": \\["algo-1", "algo-2"\\]\' /opt/ml/input/config/resourceconfig.json'
    )
    request = training_request("cluster", script=script)
    request["ResourceConfig"]["InstanceCount"] = 2
    request["InputDataConfig"] = [
        channel("training", f"s3://{BUCKET}/shards/", S3DataDistributionType="ShardedByS3Key")
    ]
    job = trained(sagemaker, request)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert archive_of(s3, job["ModelArtifacts"]["S3ModelArtifacts"]) == {
        "algo-1": b"0.tar\n2.tar\n",
        "algo-2": b"1.tar\n3.tar\n",
    }
    lines = log_lines(running.client("logs"), LOGS, prefix="cluster/algo-2-")
    assert '"hosts": ["algo-1", "algo-2"]' in lines
    if _in_namespaces(running):
        assert "127.0.0.2       algo-2" in lines


def test_a_host_that_ends_at_once_takes_no_network_from_one_that_is_not_set_up_yet(
    sagemaker: Any, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    initial_command = sandbox.initial_command

    def slowly(*, join: int = 0, **options: Any) -> list[str]:
        if join:
            time.sleep(0.5)
        return initial_command(join=join, **options)

    monkeypatch.setattr(sandbox, "initial_command", slowly)
    request = training_request("brief-cluster", script="touch /opt/ml/model/$HOSTNAME")
    request["ResourceConfig"]["InstanceCount"] = 2
    job = trained(sagemaker, request)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    model = job["ModelArtifacts"]["S3ModelArtifacts"]
    assert archive_of(s3, model) == {"algo-1": b"", "algo-2": b""}


def test_the_failure_of_one_host_ends_the_others(sagemaker: Any) -> None:
    script = "[ $HOSTNAME = algo-2 ] && exit 7; exec sleep 300"
    request = training_request("broken-cluster", script=script)
    request["ResourceConfig"]["InstanceCount"] = 2
    assert trained(sagemaker, request)["FailureReason"].endswith("exit code: 7")


def test_a_manifest_names_the_objects_of_a_channel(sagemaker: Any, s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="listed/a/1.txt", Body=b"1")
    s3.put_object(Bucket=BUCKET, Key="listed/b/2.txt", Body=b"2")
    manifest = f'[{{"prefix": "s3://{BUCKET}/listed/"}}, "b/2.txt"]'
    s3.put_object(Bucket=BUCKET, Key="manifest.json", Body=manifest.encode())
    request = training_request("listed", script="cp -r /opt/ml/input/data/training/. /opt/ml/model")
    uri = f"s3://{BUCKET}/manifest.json"
    request["InputDataConfig"] = [channel("training", uri, S3DataType="ManifestFile")]
    job = trained(sagemaker, request)
    assert archive_of(s3, job["ModelArtifacts"]["S3ModelArtifacts"]) == {"b/2.txt": b"2"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (f'[{{"prefix": "s3://{BUCKET}/listed/"}}, "nope.txt"]', "NoSuchKey"),
        (f'[{{"prefix": "s3://{BUCKET}/listed/"}}, "../x.txt"]', "'../x.txt'"),
        ('[{"x": 1}]', "does not begin with"),
        ('["a.txt"]', "does not begin with"),
        (f'[{{"prefix": "s3://{BUCKET}/listed/"}}, 5]', "names 5"),
    ],
    ids=["missing", "outside", "no prefix", "strings", "number"],
)
def test_a_manifest_that_is_wrong_is_the_users_failure(
    content: str, reason: str, sagemaker: Any, s3: Any, request: pytest.FixtureRequest
) -> None:
    s3.put_object(Bucket=BUCKET, Key="wrong.json", Body=content.encode())
    name = f"wrong-{request.node.callspec.id.replace(' ', '-')}"
    order = training_request(name, script="true")
    uri = f"s3://{BUCKET}/wrong.json"
    order["InputDataConfig"] = [channel("training", uri, S3DataType="ManifestFile")]
    failure = trained(sagemaker, order)["FailureReason"]
    assert failure.startswith("ClientError: Data download failed")
    assert reason in failure


@pytest.mark.parametrize("content", [b"plain", gzip.compress(b"x" * 99)[:-9]], ids=["plain", "cut"])
def test_a_channel_that_is_not_packed_as_it_says_is_the_users_failure(
    content: bytes, sagemaker: Any, s3: Any
) -> None:
    key = f"packed-{len(content)}"
    s3.put_object(Bucket=BUCKET, Key=f"{key}/a.gz", Body=content)
    order = training_request(key, script="true")
    uri = f"s3://{BUCKET}/{key}/"
    order["InputDataConfig"] = [{**channel("training", uri), "CompressionType": "Gzip"}]
    failure = trained(sagemaker, order)["FailureReason"]
    assert failure.startswith("ClientError: Data download failed: not all under")


def test_a_warm_pool_is_reused_by_the_next_job_alike(running: Running, sagemaker: Any) -> None:
    for name in ("warm-1", "warm-2"):
        request = training_request(name)
        request["ResourceConfig"]["KeepAlivePeriodInSeconds"] = 600
        trained(sagemaker, request)
    first = sagemaker.describe_training_job(TrainingJobName="warm-1")["WarmPoolStatus"]
    assert (first["Status"], first["ReusedByJob"]) == ("Reused", "warm-2")
    rows = sagemaker.list_training_jobs(WarmPoolStatusEquals="Available")["TrainingJobSummaries"]
    assert [row["TrainingJobName"] for row in rows] == ["warm-2"]


def test_a_waiter_is_answered_when_the_job_has_ended(sagemaker: Any) -> None:
    sagemaker.create_training_job(**training_request("awaited", script="sleep 0.5"))
    started = time.monotonic()
    waiter = sagemaker.get_waiter("training_job_completed_or_stopped")
    waiter.wait(TrainingJobName="awaited", WaiterConfig={"Delay": 60})
    assert time.monotonic() - started < 30


def test_metrics_are_in_cloudwatch_too(running: Running, sagemaker: Any) -> None:
    request = training_request("measured", script="echo loss=0.5")
    metrics = [{"Name": "loss", "Regex": "loss=(.*)"}]
    request["AlgorithmSpecification"]["MetricDefinitions"] = metrics
    trained(sagemaker, request)
    found = running.client("cloudwatch").list_metrics(Namespace="/aws/sagemaker/TrainingJobs")
    dimensions = [{"Name": "TrainingJobName", "Value": "measured"}]
    assert ("loss", dimensions) in [(m["MetricName"], m["Dimensions"]) for m in found["Metrics"]]


def test_jobs_are_listed_tagged_and_their_names_used_once(sagemaker: Any) -> None:
    request = training_request("tagged", Tags=[{"Key": "team", "Value": "dogs"}])
    arn = trained(sagemaker, request)["TrainingJobArn"]
    sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "run", "Value": "7"}])
    sagemaker.delete_tags(ResourceArn=arn, TagKeys=["team"])
    assert sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "run", "Value": "7"}]
    rows = sagemaker.list_training_jobs(NameContains="TAGG", StatusEquals="Completed")
    assert [row["TrainingJobName"] for row in rows["TrainingJobSummaries"]] == ["tagged"]
    with pytest.raises(ClientError, match="ResourceInUse"):
        sagemaker.create_training_job(**request)
    with pytest.raises(ClientError, match="Requested resource not found"):
        sagemaker.describe_training_job(TrainingJobName="unknown")


def _until_up(running: Running, name: str) -> None:
    log = running.state.settings.folder / "jobs" / name / "algo-1.log"
    until(lambda: log.exists() and "up" in log.read_text().split(), bool)


def _in_namespaces(running: Running) -> bool:
    from rehearsal.jobs.container import is_sandboxed

    return is_sandboxed(running.state)


def _set_fault(running: Running, **fault: Any) -> None:
    from rehearsal.emulator.faults import parse_fault

    running.state.faults.add(parse_fault(fault))
