"""A job's container: what it sees, what it may, how it is started, what it leaves."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from checkout import CHECKOUT
from emulated import (
    BUCKET,
    IMAGES,
    archive_of,
    channel,
    log_lines,
    trained,
    training_request,
    until,
)
from pictures import write_image_folder
from rehearsal.emulator.server import Running, emulator

pytestmark = pytest.mark.slow  # they start processes

LOGS = "/aws/sagemaker/TrainingJobs"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("emulator")
    image = folder / "image" / "bin"
    image.mkdir(parents=True)
    (image / "train").write_text('#!/bin/sh\necho "started as $0 with $1"\n')
    (image / "train").chmod(0o755)
    options: dict[str, Any] = {"stop_grace_seconds": 2, "checkpoint_seconds": 0.1}
    images = {"image": folder / "image", "darkroom": None}
    with emulator(folder / "aws", images=images, **options) as running:
        running.client("s3").create_bucket(Bucket=BUCKET)
        yield running


@pytest.fixture(scope="module")
def sagemaker(running: Running) -> Any:
    return running.client("sagemaker")


@pytest.fixture(scope="module")
def s3(running: Running) -> Any:
    return running.client("s3")


def test_without_an_entrypoint_the_images_train_program_is_started(
    running: Running, sagemaker: Any
) -> None:
    request = training_request("image")
    del request["AlgorithmSpecification"]["ContainerEntrypoint"]
    del request["AlgorithmSpecification"]["ContainerArguments"]
    assert trained(sagemaker, request)["TrainingJobStatus"] == "Completed"
    (line,) = log_lines(running.client("logs"), LOGS, prefix="image/")
    assert line.endswith("/bin/train with train")


def test_a_job_sees_nothing_of_the_users_and_cannot_change_the_system(
    running: Running, sagemaker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not _in_namespaces(running):
        pytest.skip("namespaces are not allowed on this machine")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the user's")
    secret = tmp_path / "secret"
    secret.write_text("mine")
    script = (
        f"cat {secret}; ls {Path.home()}/.ssh; ls {CHECKOUT}/tests; ls {CHECKOUT}/.git; "
        f"ls {CHECKOUT}/darkroom/py.typed; touch /usr/mine {CHECKOUT}/darkroom/mine; env; "
        "ls /proc | grep -c '^[0-9]'; cat /etc/passwd; getent hosts algo-1; pwd"
    )
    trained(sagemaker, training_request("closed", script=script))
    lines = log_lines(running.client("logs"), LOGS, prefix="closed/")
    text = "\n".join(lines)
    assert "mine" not in lines
    assert "the user's" not in text
    assert text.count("No such file or directory") == 4
    assert text.count("Read-only file system") == 2
    assert f"{CHECKOUT}/darkroom/py.typed" in lines
    assert "SAGEMAKER_BASE_DIR" not in text
    assert "127.0.0.1       algo-1" in lines
    assert lines[-1] == "/app"
    assert not secret.with_name("mine").exists()


def test_a_program_that_does_not_exist_fails_the_job(running: Running, sagemaker: Any) -> None:
    request = training_request("nothing")
    request["AlgorithmSpecification"]["ContainerEntrypoint"] = ["no-such-program"]
    assert trained(sagemaker, request)["FailureReason"].endswith("exit code: 127")
    (line,) = log_lines(running.client("logs"), LOGS, prefix="nothing/")
    assert line == "exec: 'no-such-program': No such file or directory"


def test_a_job_without_network_reaches_nothing(running: Running, sagemaker: Any) -> None:
    if not _in_namespaces(running):
        pytest.skip("namespaces are not allowed on this machine")
    script = (
        "python -c 'import urllib.request as r, os; r.urlopen(os.environ[\"AWS_ENDPOINT_URL\"])'"
    )
    trained(sagemaker, training_request("alone", script=script, EnableNetworkIsolation=True))
    lines = log_lines(running.client("logs"), LOGS, prefix="alone/")
    assert "Connection refused" in lines[-1]


def test_zenmls_entrypoint_may_use_app_and_reaches_s3_with_its_role(
    running: Running, sagemaker: Any, s3: Any
) -> None:
    script = (
        "import os, boto3; os.makedirs('/app/code'); os.chdir('/app'); "
        "s3 = boto3.client('s3'); s3.put_object(Bucket='pictures', Key='from-job', Body=b'hello'); "
        "print(boto3.client('sts').get_caller_identity()['Account'])"
    )
    request = training_request("zenml")
    request["AlgorithmSpecification"] |= {
        "ContainerEntrypoint": ["python", "-c"],
        "ContainerArguments": [script],
    }
    job = trained(sagemaker, request)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert s3.get_object(Bucket=BUCKET, Key="from-job")["Body"].read() == b"hello"
    assert log_lines(running.client("logs"), LOGS, prefix="zenml/") == ["123456789012"]
    assert not Path("/app/code").exists()


def test_what_lies_on_s3_is_not_kept_twice(running: Running, sagemaker: Any, s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="once/one.txt", Body=b"1")
    script = "touch /opt/ml/model/w /opt/ml/checkpoints/c /opt/ml/output/data/d /opt/ml/x"
    request = training_request("tidy", script=script)
    request["InputDataConfig"] = [channel("training", f"s3://{BUCKET}/once/")]
    trained(sagemaker, request)
    folder = running.state.settings.folder / "jobs" / "tidy"

    def left() -> set[str]:
        return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}

    until(left, lambda names: "algo-1/ml/x" not in names)
    assert left() == {
        "algo-1.log",
        "algo-1/ml/output/data/d",
        *(
            f"algo-1/ml/input/config/{n}.json"
            for n in ("hyperparameters", "resourceconfig", "inputdataconfig")
        ),
    }


@pytest.mark.slow
def test_darkrooms_train_program_trains_in_a_job(
    running: Running, sagemaker: Any, s3: Any, tmp_path: Path
) -> None:
    folder = write_image_folder(tmp_path / "pictures", per_class=6)
    for path in folder.rglob("*.png"):
        s3.upload_file(str(path), BUCKET, f"classes/{path.relative_to(folder).as_posix()}")
    request = training_request("darkroom", Environment={"OMP_NUM_THREADS": "1"})
    request["HyperParameters"] = {
        "architecture": "squeezenet1_1",
        "weights": "none",
        "epochs": "1",
        "image_size": "32",
        "batch_size": "4",
    }
    request["InputDataConfig"] = [channel("training", f"s3://{BUCKET}/classes/")]
    request["AlgorithmSpecification"] = {
        "TrainingImage": "darkroom",
        "TrainingInputMode": "File",
        "MetricDefinitions": [{"Name": "loss", "Regex": "validation_log_loss=([0-9.e-]+)"}],
    }
    job = trained(sagemaker, request)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    files = archive_of(s3, job["ModelArtifacts"]["S3ModelArtifacts"])
    assert {"model.json", "model.onnx", "model.safetensors"} <= set(files)
    assert job["FinalMetricDataList"][0]["Value"] > 0


def test_without_namespaces_the_base_folder_is_told_and_noted(tmp_path: Path) -> None:
    with emulator(tmp_path / "aws", images=IMAGES, sandboxed=False) as plain:
        plain.client("s3").create_bucket(Bucket=BUCKET)
        script = "echo $SAGEMAKER_BASE_DIR; ls $SAGEMAKER_BASE_DIR/input/config"
        job = trained(plain.client("sagemaker"), training_request("plain", script=script))
        assert job["TrainingJobStatus"] == "Completed"
        lines = log_lines(plain.client("logs"), LOGS, prefix="plain/")
        assert any("plain processes" in gap for gap in plain.state.log.gaps)
    assert lines[0] == str(tmp_path / "aws" / "jobs" / "plain" / "algo-1" / "ml")
    assert "hyperparameters.json" in lines


@pytest.mark.parametrize("sandboxed", [True, False])
def test_nothing_is_left_running_when_the_emulator_ends(tmp_path: Path, sandboxed: bool) -> None:
    wanted = None if sandboxed else False
    with emulator(tmp_path / "aws", images=IMAGES, sandboxed=wanted) as brief:
        if sandboxed and not _in_namespaces(brief):
            pytest.skip("namespaces are not allowed on this machine")
        brief.client("s3").create_bucket(Bucket=BUCKET)
        sagemaker = brief.client("sagemaker")
        mark = f"31{os.getpid()}"
        request = training_request("long", script=f"sleep {mark} & exec sleep {mark}")
        sagemaker.create_training_job(**request)
        until(lambda: _sleeping(mark), lambda number: number == 2)
    assert until(lambda: _sleeping(mark), lambda number: number == 0) == 0


def _sleeping(mark: str) -> int:
    count = 0
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            count += path.read_bytes() == f"sleep\0{mark}\0".encode()
        except OSError:
            continue
    return count


def _in_namespaces(running: Running) -> bool:
    from rehearsal.jobs.container import is_sandboxed

    return is_sandboxed(running.state)
