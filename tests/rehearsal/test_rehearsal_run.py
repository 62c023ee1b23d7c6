"""The whole of the digits pipeline in the rehearsal, as a user runs it: and nothing is left."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest

from checkout import CHECKOUT
from darkroom.runs.summary import Summary

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

_KEPT = "export "


class Place:
    """A workspace with a stand-in that is kept up."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "DARKROOM_HOME": str(folder / "home"),
            "HOME": str(folder / "user"),
            # An account of the user's, which a rehearsal must neither use nor change.
            "AWS_PROFILE": "company",
            "AWS_CONFIG_FILE": str(folder / "user" / "config"),
        }
        self.environment.pop("OMP_NUM_THREADS", None)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(CHECKOUT / "run.py"), *arguments],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=self.environment,
            timeout=600,
            check=False,
        )

    def client(self, service: str) -> Any:
        kept = json.loads((self.folder / "home" / "rehearsals" / "kept.json").read_text())
        return boto3.client(
            service,
            endpoint_url=kept["aws"],
            region_name="us-east-1",
            aws_access_key_id=f"AKIA{kept['password'][:16].upper()}",
            aws_secret_access_key=kept["password"],
        )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    place = Place(tmp_path_factory.mktemp("rehearsal"))
    (place.folder / "user").mkdir()
    stand_in = subprocess.Popen(
        [sys.executable, "-m", "rehearsal"],
        cwd=CHECKOUT,
        env=place.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert stand_in.stdout
    for line in stand_in.stdout:
        if "Ctrl-C" in line:
            break
    started = [psutil.Process(stand_in.pid), *psutil.Process(stand_in.pid).children(recursive=True)]
    yield place
    stand_in.send_signal(signal.SIGTERM)
    assert stand_in.wait(30) == 0
    stand_in.stdout.close()
    _, alive = psutil.wait_procs(started, timeout=10)
    assert alive == []


@pytest.fixture(scope="module")
def rehearsed(place: Place) -> subprocess.CompletedProcess[str]:
    """One run with everything: search, training, endpoint that stays, batch."""
    options = ["--keep-endpoint", "--set", "batch.split=test", "--set", "tuning.trials=2"]
    return place.run("--stack", "rehearsal", *options, "--summary", "summary.json")


def test_the_digits_go_from_ingest_to_a_verified_endpoint_and_a_batch(
    place: Place, rehearsed: subprocess.CompletedProcess[str]
) -> None:
    assert rehearsed.returncode == 0, rehearsed.stdout[-3000:] + rehearsed.stderr[-3000:]
    summary = Summary.model_validate_json((place.folder / "summary.json").read_text())
    assert summary.run.stack == "rehearsal"
    assert summary.metrics["test"]["accuracy"].value >= 0.95
    assert summary.endpoint
    assert summary.endpoint.agreement == 1
    assert summary.batch
    assert summary.batch.unreadable == 0
    assert summary.batch.correct == pytest.approx(summary.metrics["test"]["accuracy"].value)
    assert summary.artifacts.registered_model
    assert summary.artifacts.registered_model.package


def test_the_work_was_done_by_managed_jobs(
    place: Place, rehearsed: subprocess.CompletedProcess[str]
) -> None:
    sagemaker = place.client("sagemaker")
    jobs = sagemaker.list_training_jobs()["TrainingJobSummaries"]
    tuning = sagemaker.list_hyper_parameter_tuning_jobs()["HyperParameterTuningJobSummaries"]
    assert len(tuning) == 1
    assert len(jobs) == 1 + 2  # the orchestration and the trials, the best of which is used
    assert {job["TrainingJobStatus"] for job in jobs} <= {"Completed", "Stopped"}


def test_the_report_says_what_it_would_have_been_on_aws(
    rehearsed: subprocess.CompletedProcess[str],
) -> None:
    text = rehearsed.stdout
    assert "On AWS this would have been" in text
    assert "ml.m5.xlarge" in text
    assert "IAM: no permission is evaluated" in text


def test_the_users_account_was_neither_read_nor_written(
    place: Place, rehearsed: subprocess.CompletedProcess[str]
) -> None:
    assert list((place.folder / "user").iterdir()) == []


def test_down_leaves_nothing_behind(
    place: Place, rehearsed: subprocess.CompletedProcess[str]
) -> None:
    listed = place.run("endpoints", "--stack", "rehearsal", "--json")
    assert [row["name"] for row in json.loads(listed.stdout)] == ["digits"]
    removed = place.run("down", "--all", "--yes", "--stack", "rehearsal")
    assert removed.returncode == 0, removed.stderr
    sagemaker = place.client("sagemaker")
    assert sagemaker.list_endpoints()["Endpoints"] == []
    assert sagemaker.list_endpoint_configs()["EndpointConfigs"] == []
    assert sagemaker.list_models()["Models"] == []
    assert sagemaker.list_pipelines()["PipelineSummaries"] == []
    assert sagemaker.list_training_jobs(StatusEquals="InProgress")["TrainingJobSummaries"] == []
    assert place.client("cloudwatch").describe_alarms()["MetricAlarms"] == []
