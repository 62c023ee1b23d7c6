"""Faults strike whom and how often they are meant to, and are told in the records."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError

from emulated import BUCKET, IMAGES, log_lines, spot, trained, training_request
from rehearsal.emulator.faults import parse_fault
from rehearsal.emulator.records import STARTUP_SECONDS
from rehearsal.emulator.server import Running, emulator

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with emulator(tmp_path_factory.mktemp("aws"), images=IMAGES, stop_grace_seconds=2) as running:
        running.client("s3").create_bucket(Bucket=BUCKET)
        yield running


@pytest.fixture
def running(aws: Running) -> Iterator[Running]:
    yield aws
    aws.state.faults.clear()


def _post(running: Running, content: object, *, method: str = "POST") -> Any:
    request = urllib.request.Request(
        f"{running.url}/_rehearsal/faults", json.dumps(content).encode(), method=method
    )
    with urllib.request.urlopen(request) as answer:
        return json.loads(answer.read())


def test_throttling_meets_the_next_calls_of_an_operation_only(running: Running) -> None:
    client = _patient(running, "sagemaker", attempts=1)
    _post(running, {"name": "throttling", "operations": "ListTraining*", "times": 2})
    client.list_models()
    for _ in range(2):
        with pytest.raises(ClientError, match="ThrottlingException"):
            client.list_training_jobs()
    client.list_training_jobs()
    assert _post(running, [], method="POST") == []


def test_an_sdk_that_repeats_survives_throttling(running: Running) -> None:
    _post(running, {"name": "throttling", "times": 2})
    assert "TrainingJobSummaries" in _patient(running, "sagemaker").list_training_jobs()


@pytest.mark.parametrize(
    ("service", "code"),
    [
        ("sagemaker", "ExpiredTokenException"),
        ("s3", "ExpiredToken"),
        ("sts", "ExpiredToken"),
        ("logs", "ExpiredTokenException"),
        ("cloudwatch", "ExpiredTokenException"),
    ],
)
def test_expired_credentials_are_told_as_each_service_tells_them(
    running: Running, service: str, code: str
) -> None:
    client = _patient(running, service, attempts=1)
    calls = {
        "sagemaker": "list_training_jobs",
        "s3": "list_buckets",
        "sts": "get_caller_identity",
        "logs": "describe_log_groups",
        "cloudwatch": "describe_alarms",
    }
    _post(running, {"name": "expired_credentials", "services": service, "times": 1})
    with pytest.raises(ClientError) as refused:
        getattr(client, calls[service])()
    assert refused.value.response["Error"]["Code"] == code
    getattr(client, calls[service])()


def test_a_lost_connection_is_no_answer(running: Running) -> None:
    client = _patient(running, "sagemaker", attempts=1)
    _post(running, {"name": "lost_connection", "times": 1})
    with pytest.raises(ConnectionClosedError):
        client.list_training_jobs()
    client.list_training_jobs()


def test_s3_is_slowed(running: Running) -> None:
    s3 = running.client("s3")
    _post(running, {"name": "slow_s3", "seconds": 0.3, "times": 1})
    started = time.monotonic()
    s3.put_object(Bucket=BUCKET, Key="slow", Body=b"")
    assert time.monotonic() - started >= 0.3


def test_no_capacity_fails_the_job_and_the_next_one_gets_it(running: Running) -> None:
    sagemaker = running.client("sagemaker")
    _post(running, {"name": "capacity", "jobs": "hungry-*"})
    failed = trained(sagemaker, training_request("hungry-1"))
    assert failed["FailureReason"].startswith("CapacityError: ")
    assert "TrainingStartTime" not in failed
    assert trained(sagemaker, training_request("hungry-2"))["TrainingJobStatus"] == "Completed"


def test_a_dead_container_leaves_no_log(running: Running) -> None:
    sagemaker = running.client("sagemaker")
    _post(running, {"name": "dead_container", "jobs": "dead"})
    job = trained(sagemaker, training_request("dead", script="echo alive"))
    assert job["FailureReason"] == "AlgorithmError: , exit code: 1"
    trained(sagemaker, training_request("alive", script="echo alive"))
    group = "/aws/sagemaker/TrainingJobs"
    assert log_lines(running.client("logs"), group, prefix="dead/") == []


def test_a_job_that_is_not_on_spot_machines_keeps_its_own(running: Running) -> None:
    _post(running, {"name": "spot_interruption"})
    sagemaker = running.client("sagemaker")
    job = trained(sagemaker, training_request("owned", script="sleep 0.2"))
    assert "Interrupted" not in [t["Status"] for t in job["SecondaryStatusTransitions"]]
    job = trained(sagemaker, spot(training_request("rented", script="sleep 0.2")))
    assert job["TrainingJobStatus"] == "Completed"
    assert "Interrupted" in [t["Status"] for t in job["SecondaryStatusTransitions"]]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"name": "earthquake"}, "no such fault; there are throttling,"),
        ({"name": "capacity", "job": "x"}, "'capacity': it takes no 'job'"),
        ({"name": "throttling", "share": 2}, "less than or equal to 1"),
        ("slow_s3:seconds=long", "valid number"),
    ],
)
def test_an_unknown_fault_is_told_with_what_is_known(content: object, told: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - what it says is asked below
        parse_fault(content)
    assert told in str(error.value)


def test_the_command_lines_faults_are_those_of_the_page() -> None:
    text = parse_fault("spot_interruption:jobs=tune-*,after_seconds=2.5,times=3")
    page = {"name": "spot_interruption", "jobs": "tune-*", "after_seconds": 2.5, "times": 3}
    assert text == parse_fault(page)


def test_faults_that_are_wrong_are_refused_as_a_whole(running: Running) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        _post(running, [{"name": "capacity"}, {"name": "nonsense"}])
    assert refused.value.code == 400
    refused.value.close()
    assert running.state.faults.shown() == []


def test_the_records_tell_jobs_calls_refusals_and_faults(tmp_path: Path) -> None:
    with emulator(tmp_path / "aws", images=IMAGES) as running:
        running.client("s3").create_bucket(Bucket=BUCKET)
        sagemaker = running.client("sagemaker")
        request = spot(training_request("told", Tags=[{"Key": "run", "Value": "7"}]))
        _post(running, {"name": "spot_interruption", "jobs": "told"})
        trained(sagemaker, request)
        with pytest.raises(ClientError):
            sagemaker.create_training_job(**request)
        with urllib.request.urlopen(f"{running.url}/_rehearsal/records") as answer:
            records = json.loads(answer.read())
    (job,) = [r for r in records["resources"] if r["kind"] == "training-job"]
    assert (job["name"], job["status"], job["instance_type"]) == (
        "told",
        "Completed",
        "ml.m5.large",
    )
    assert job["startup_seconds"] == 2 * STARTUP_SECONDS["training-job"]
    assert job["tags"] == {"run": "7"}
    assert job["details"]["interruptions"] == 1
    assert records["calls"]["sagemaker:CreateTrainingJob"] == 2
    assert [r["code"] for r in records["refused"]] == ["ResourceInUse"]
    assert records["faults_applied"][0]["name"] == "spot_interruption"
    assert records["mistakes"] == []
    assert any("IAM" in gap for gap in records["not_covered"])


def _patient(running: Running, service: str, *, attempts: int = 5) -> Any:
    from botocore.config import Config

    from rehearsal.emulator.clients import isolated_session

    return isolated_session("AKIAREHEARSALUSER000").client(
        service,
        endpoint_url=running.url,
        region_name="us-east-1",
        config=Config(retries={"mode": "standard", "total_max_attempts": attempts}),
    )
