"""The rehearsal's independent check: scripts of users who have never heard of Darkroom.

Both scripts in tests/independent/ would run on AWS as they are; here their environment names
the emulator, a process of its own, and lets them sleep less than they ask for.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest

from checkout import TESTS

pytestmark = [pytest.mark.slow]

SCRIPTS = TESTS / "independent"
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/clouds:1"
BUCKET = "clouds"
KEY = "AKIAINDEPENDENT00000"
SDK_SETTINGS = "SchemaVersion: '1.0'\nSageMaker: {PythonSDK: {Modules: {TelemetryOptOut: true}}}\n"
NAMES = ("plain_boto3", "sdk_v2")


@dataclass(frozen=True)
class Told:
    """What is known once both scripts have ended."""

    plain: dict[str, Any]
    sdk: dict[str, Any]
    records: dict[str, Any]
    left: dict[str, Any]
    """What they have not deleted."""
    running: list[str]
    """Processes of the emulator's, before it was stopped."""
    orphans: list[str]
    """Processes that outlived it."""
    exit_code: int


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    folder = tmp_path_factory.mktemp("independent")
    with emulator(folder) as process:
        environment = clean_environment(folder)
        client("s3", environment).create_bucket(Bucket=BUCKET)
        scripts = [start(name, folder=folder, environment=environment) for name in NAMES]
        plain, sdk = (came_back(s, folder=folder) for s in scripts)
        records = read_records(environment)
        left = what_is_left(environment)
        running = children_of(process, patience=10)
    orphans = [" ".join(p.cmdline()) for p in processes_below(folder)]
    return Told(plain, sdk, records, left, running, orphans, process.returncode)


@contextmanager
def emulator(folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """As a user starts it, on any free port."""
    arguments = ["--folder", folder / "aws", "--port-file", folder / "port", "--access-key", KEY]
    arguments += ["--image", f"{IMAGE}={SCRIPTS / 'image'}"]
    arguments += ["--fault", "spot_interruption:jobs=*-spot,after_seconds=1.5"]
    process = subprocess.Popen([sys.executable, "-m", "rehearsal.emulator.server", *arguments])
    try:
        deadline = time.monotonic() + 60
        while not (folder / "port").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        process.wait(30)


def clean_environment(folder: Path) -> dict[str, str]:
    """A user's who has an account, a role, an image and a bucket; nothing of this process's."""
    settings = folder / "sagemaker-sdk.yaml"
    settings.write_text(SDK_SETTINGS)
    (folder / "home").mkdir()
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "home"),
        "PYTHONPATH": str(SCRIPTS / "impatient"),
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{(folder / 'port').read_text()}",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_EC2_METADATA_DISABLED": "true",
        "SAGEMAKER_ADMIN_CONFIG_OVERRIDE": str(settings),
        "SAGEMAKER_USER_CONFIG_OVERRIDE": str(settings),
        "SAGEMAKER_SUPPRESS_V2_WARNING": "1",
        "ROLE_ARN": "arn:aws:iam::123456789012:role/clouds",
        "IMAGE_URI": IMAGE,
        "BUCKET": BUCKET,
    }


def start(
    name: str, *, folder: Path, environment: dict[str, str]
) -> tuple[str, "subprocess.Popen[bytes]"]:
    with (folder / f"{name}.out").open("wb") as out, (folder / f"{name}.err").open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, SCRIPTS / f"{name}.py"],
            env=environment,
            cwd=folder / "home",
            stdout=out,
            stderr=err,
        )
    return name, process


def came_back(script: tuple[str, "subprocess.Popen[bytes]"], *, folder: Path) -> dict[str, Any]:
    """The last line of what a script printed."""
    name, process = script
    try:
        code = process.wait(180)
    finally:
        process.kill()
        process.wait()
    printed = (folder / f"{name}.out").read_text()
    assert code == 0, printed[-3000:] + (folder / f"{name}.err").read_text()[-5000:]
    answer: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return answer


def client(service: str, environment: dict[str, str]) -> Any:
    return boto3.client(
        service,
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id=KEY,
        aws_secret_access_key="secret",
    )


def read_records(environment: dict[str, str]) -> dict[str, Any]:
    import requests

    answer = requests.get(
        f"{environment['AWS_ENDPOINT_URL']}/_rehearsal/records",
        headers={"Authorization": f"Bearer {KEY}"},
        timeout=20,
    )
    found: dict[str, Any] = answer.json()
    return found


def what_is_left(environment: dict[str, str]) -> dict[str, Any]:
    """Jobs stay for ever, as on AWS; all else has to be deleted."""
    sagemaker = client("sagemaker", environment)
    scaling = client("application-autoscaling", environment)
    packages = sagemaker.list_model_packages(ModelPackageType="Both")
    targets = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")
    return {
        "endpoints": sagemaker.list_endpoints()["Endpoints"],
        "configs": sagemaker.list_endpoint_configs()["EndpointConfigs"],
        "models": sagemaker.list_models()["Models"],
        "groups": sagemaker.list_model_package_groups()["ModelPackageGroupSummaryList"],
        "packages": packages["ModelPackageSummaryList"],
        "scaling": targets["ScalableTargets"],
        "alarms": client("cloudwatch", environment).describe_alarms()["MetricAlarms"],
        "objects": client("s3", environment).list_objects_v2(Bucket=BUCKET).get("Contents", []),
    }


def children_of(process: "subprocess.Popen[bytes]", *, patience: float) -> list[str]:
    """The processes below one, once they have had the time to end."""
    deadline = time.monotonic() + patience
    while True:
        found = psutil.Process(process.pid).children(recursive=True)
        if not found or time.monotonic() > deadline:
            return [str(each) for each in found]
        time.sleep(0.1)


def processes_below(folder: Path) -> list[psutil.Process]:
    """Those whose command line or working folder is of this test."""
    found = []
    for process in psutil.process_iter():
        try:
            about = [*process.cmdline(), process.cwd()]
        except psutil.Error:
            continue
        if any(str(folder) in part for part in about):
            found.append(process)
    return found


def test_a_plain_training_job_trains_for_real(told: Told) -> None:
    job = told.plain["train"]
    assert job["status"] == "Completed"
    states = ["Starting", "Downloading", "Training", "Uploading", "Completed"]
    assert job["secondary"] == states
    assert job["report"] == sorted(job["report"])
    assert 0.8 < job["report"][-1] < 1
    assert job["accuracy"] == round(job["report"][-1], 4)
    assert job["graphed"] == [[job["accuracy"], 6]] or sum(n for _, n in job["graphed"]) == 6
    assert job["model"] == ["weights.npy"]
    epochs = [f"epoch={n}; validation:accuracy={a:.4f};" for n, a in enumerate(job["report"], 1)]
    assert job["lines"] == ["channels: train,validation", *epochs]
    assert job["tags"] == [{"Key": "project", "Value": "clouds"}]
    assert [name.endswith("-good") for name in job["listed"]] == [True]


def test_failed_jobs_tell_their_reasons_as_aws_does(told: Told) -> None:
    bad, no_data = told.plain["fail"]["bad"], told.plain["fail"]["no-data"]
    assert bad["waiter"] == no_data["waiter"] == "WaiterError"
    assert bad["status"] == no_data["status"] == "Failed"
    reason = "AlgorithmError: ValueError: learning_rate must be above 0, not -1.0, exit code: 1"
    assert bad["reason"] == reason
    assert no_data["reason"].startswith("ClientError: Data download failed: No S3 objects found")
    failed = told.sdk["fail"]
    assert f"Failed. Reason: {reason}" in failed["reason"]
    assert "ValueError: learning_rate must be above 0" in failed["shown"]


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        ("name", "ValidationException: 1 validation error detected: Value 'plain-"),
        ("taken", "ResourceInUse: Training job names must be unique"),
        ("spot without wait", "ValidationException: Invalid MaxWaitTimeInSeconds"),
        ("instance type", "ValidationException: 1 validation error detected: Value 'ml.huge'"),
        ("unknown job", "ValidationException: Requested resource not found."),
        ("unknown endpoint", "ValidationException: Could not find endpoint"),
        ("unknown model", "ValidationException: Could not find model"),
        ("invocation", "ValidationError: Endpoint nowhere of account 123456789012 not found."),
        ("bucket", "404: Not Found"),
        ("stopped twice", "ValidationException: The request was rejected because the training"),
    ],
)
def test_bad_requests_are_refused_with_the_codes_of_aws(
    told: Told, request_: str, answer: str
) -> None:
    assert told.plain["refuse"][request_].startswith(answer)


def test_a_stopped_job_keeps_the_model_that_it_had(told: Told) -> None:
    job = told.plain["stop"]
    assert (job["status"], job["secondary"]) == ("Stopped", "Stopped")
    assert job["model"] == ["weights.npy"]
    assert job["last line"].startswith("stopped after epoch ")


def test_an_interrupted_spot_job_goes_on_from_its_checkpoint(told: Told) -> None:
    job = told.plain["spot"]
    assert job["status"] == "Completed"
    assert job["secondary"][2:5] == ["Training", "Interrupted", "Restarting"]
    (resumed,) = [line for line in job["lines"] if line.startswith("going on after epoch ")]
    epochs = [line.partition(";")[0] for line in job["lines"] if line.startswith("epoch=")]
    assert 0 < int(resumed.rpartition(" ")[2]) < 12
    assert epochs == [f"epoch={number}" for number in range(1, 13)]
    assert job["checkpoints"] == 12


def test_plain_tuning_finds_the_best_of_its_jobs(told: Told) -> None:
    job = told.plain["tune"]
    assert job["status"] == "Completed"
    assert job["counters"]["Completed"] == 3
    scores = [trial["score"] for trial in job["trials"]]
    assert scores == sorted(scores, reverse=True)
    assert job["best"] in {t["name"] for t in job["trials"] if t["score"] == scores[0]}
    assert all(0.001 <= float(t["values"]["learning_rate"]) <= 1 for t in job["trials"])
    assert all(t["values"]["solver"] in ("plain", "eager") for t in job["trials"])


def test_the_registry_keeps_versions_and_their_approval(told: Told) -> None:
    wanted = {"version": 1, "approval": "Approved", "metadata": {"accuracy": "high"}}
    assert told.plain["package"] == {**wanted, "listed": [1]}
    assert told.sdk["register"] == {
        "answer": {"classes": [2], "model": ""},
        "approval": "Approved",
        "version": 1,
    }


def test_a_plain_endpoint_predicts_and_passes_errors_on(told: Told) -> None:
    served = told.plain["serve"]
    assert served["early"].startswith("ValidationError: Endpoint plain-")
    assert served["csv"] == {"classes": [0, 1, 2], "model": "first"}
    assert served["json"] == {"classes": [2], "model": "first"}
    assert served["accepted"] == "2\n"
    original, message, stream, status = served["bad payload"]
    assert (original, status) == (400, 424)
    assert message == "no rows of numbers: could not convert string to float: 'north'"
    assert "log-group:/aws/sagemaker/Endpoints/plain-" in stream
    assert served["bad type"][0] == 415
    assert served["lines"][0] == "serving weights of shape (3, 3)"
    assert served["captured"][0] == "0,0\n4,0\n0,4\n"


def test_a_canary_moves_the_traffic_to_the_packaged_model(told: Told) -> None:
    update = told.plain["update"]
    assert update["busy"].startswith("ValidationException: Cannot update in-progress endpoint")
    assert update["answered meanwhile"] == ["first", "packaged"]
    assert update["status"] == "InService"
    assert (update["answers"], update["config"], update["instances"]) == ("packaged", "-second", 2)
    scaled = told.plain["scale"]
    assert scaled == {"capacity": [[1, 3]], "policies": ["TargetTrackingScaling"], "instances": 1}


def test_plain_transform_answers_each_object_or_says_why_not(told: Told) -> None:
    good, bad = told.plain["transform"]["batch"], told.plain["transform"]["nonsense"]
    assert good["status"] == "Completed"
    assert good["output"] == {"a.csv.out": "0\n1\n2\n", "deeper/b.csv.out": "1\n"}
    assert (bad["status"], bad["output"]) == ("Failed", {})
    assert bad["reason"] == "ClientError: See job logs for more information"
    *before, said = bad["lines"]
    assert said.endswith("no rows of numbers: could not convert string to float: 'north'")
    assert "/invocations: 400" in before


def test_the_sdk_trains_and_shows_the_log_while_it_waits(told: Told) -> None:
    trained = told.sdk["train"]
    assert "Starting - Starting the training job" in trained["shown"]
    assert "epoch=6; validation:accuracy=0." in trained["shown"]
    assert "Billable seconds: " in trained["shown"]
    assert trained["model"] == ["weights.npy"]
    assert trained["attached"]
    assert trained["hyperparameters"] == {"epochs": "6"}
    assert all(0.7 < value < 1 for value in trained["graphed"])


def test_the_sdk_tunes_and_names_the_best_job(told: Told) -> None:
    tuned = told.sdk["tune"]
    assert tuned["status"] == "Completed"
    assert len(tuned["scores"]) == 4
    assert tuned["best values"]["solver"] in ("plain", "eager")
    assert tuned["best"] in tuned["best model"]
    assert tuned["best score"] == tuned["scores"][0]
    assert tuned["attached"] == {"epochs": "2"}


def test_the_sdk_runs_a_script_as_a_processing_job(told: Told) -> None:
    assert told.sdk["process"]["count"] == "300"
    assert "counted ['--by', 'lines']" in told.sdk["process"]["shown"]


def test_the_sdk_deploys_updates_and_transforms(told: Told) -> None:
    assert told.sdk["serve"]["answer"] == {"classes": [0, 1, 2], "model": ""}
    assert "(ModelError)" in told.sdk["serve"]["bad payload"]
    assert "Received client error (400) from primary" in told.sdk["serve"]["bad payload"]
    assert told.sdk["update"]["answer"] == {"classes": [1], "model": "tuned"}
    assert (told.sdk["update"]["instances"], told.sdk["update"]["status"]) == (2, "InService")
    assert told.sdk["attach"] == "2\n"
    assert told.sdk["transform"]["results"] == {"a.csv.out": "0\n1\n2\n", "b.csv.out": "1\n"}
    assert "/invocations: 200" in told.sdk["transform"]["shown"]


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("clarify", "SageMaker Clarify runs in AWS's own image. On AWS it may work."),
        ("neo", "CreateCompilationJob is not executed in the rehearsal"),
        ("baseline", "SageMaker Model Monitor runs in AWS's own image. On AWS it may work."),
        ("schedule", "is not executed in the rehearsal"),
    ],
)
def test_what_cannot_be_executed_is_refused_in_so_many_words(
    told: Told, what: str, why: str
) -> None:
    assert "(NotExecutedInRehearsal)" in told.sdk["not here"][what]
    assert why in told.sdk["not here"][what]


def test_nothing_is_left_and_nothing_runs_on(told: Told) -> None:
    assert told.plain["clean_up"]["gone"].startswith("ValidationError: Endpoint plain-")
    assert told.plain["clean_up"]["full group"].startswith("ConflictException: ")
    assert told.sdk["clean up"].startswith("ValidationError: ")
    assert {kind: found for kind, found in told.left.items() if found} == {}
    assert told.records["mistakes"] == []
    assert told.running == []
    assert told.orphans == []
    assert told.exit_code == 0
