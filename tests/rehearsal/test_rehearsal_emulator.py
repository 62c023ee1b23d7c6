"""The emulator as a program: it starts fast, serves all of AWS on one port, and ends cleanly."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from checkout import CHECKOUT
from emulated import BUCKET, training_request, until
from rehearsal.emulator.clients import isolated_session
from rehearsal.emulator.server import emulator, main

pytestmark = pytest.mark.slow


def _start(folder: Path, *more: str) -> Any:
    port_file = folder / "port"
    program = [sys.executable, "-m", "rehearsal.emulator.server"]
    process = subprocess.Popen(
        [
            *program,
            "--folder",
            str(folder / "aws"),
            "--port-file",
            str(port_file),
            "--own-image",
            "image",
            *more,
        ],
        cwd=CHECKOUT,
        stdout=subprocess.DEVNULL,
    )
    until(port_file.exists, bool)
    return process, f"http://127.0.0.1:{port_file.read_text()}"


def _client(url: str, service: str) -> Any:
    return isolated_session("AKIATEST").client(service, endpoint_url=url, region_name="eu-west-1")


def test_the_program_serves_and_sigterm_ends_it_and_its_jobs(tmp_path: Path) -> None:
    started = time.monotonic()
    process, url = _start(tmp_path, "--region", "eu-west-1", "--account", "111122223333")
    assert time.monotonic() - started < 15
    try:
        assert _client(url, "sts").get_caller_identity()["Account"] == "111122223333"
        location = {"LocationConstraint": "eu-west-1"}
        _client(url, "s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration=location)
        sagemaker = _client(url, "sagemaker")
        request = training_request("long", script=f"exec sleep 32{os.getpid()}")
        arn = sagemaker.create_training_job(**request)["TrainingJobArn"]
        assert arn == "arn:aws:sagemaker:eu-west-1:111122223333:training-job/long"
        until(lambda: _running(f"32{os.getpid()}"), bool)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    until(lambda: not _running(f"32{os.getpid()}"), bool)


def test_a_killed_emulator_leaves_no_job_behind(tmp_path: Path) -> None:
    process, url = _start(tmp_path)
    try:
        _client(url, "s3").create_bucket(
            Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
        )
        request = training_request("long", script=f"exec sleep 33{os.getpid()}")
        _client(url, "sagemaker").create_training_job(**request)
        until(lambda: _running(f"33{os.getpid()}"), bool)
    finally:
        process.kill()
        process.wait(20)
    until(lambda: not _running(f"33{os.getpid()}"), bool)


def test_the_program_ends_when_its_parent_does(tmp_path: Path) -> None:
    """A parent that starts it and is gone."""
    port_file = tmp_path / "port"
    code = (
        "import os, subprocess, sys, time, pathlib\n"
        "os.environ['DARKROOM_PARENT_PID'] = str(os.getpid())\n"
        "child = subprocess.Popen([sys.executable, '-m', 'rehearsal.emulator.server', '--folder', "
        f"{str(tmp_path / 'aws')!r}, '--port-file', {str(port_file)!r}], "
        "stdout=subprocess.DEVNULL)\n"
        f"while not pathlib.Path({str(port_file)!r}).exists(): time.sleep(0.05)\n"
        "print(child.pid, flush=True)\n"
        "os._exit(0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    pid = int(done.stdout)
    until(lambda: not _is_server(pid), bool)


def test_the_users_aws_settings_are_neither_read_nor_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config"
    config.write_text("[profile broken]\nregion = nowhere\nendpoint_url = http://127.0.0.1:1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_PROFILE", "missing")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with emulator(tmp_path / "aws") as running:
        running.state.clients["s3"].create_bucket(Bucket=BUCKET)
        running.state.clients["s3"].put_object(Bucket=BUCKET, Key="a", Body=b"1")
    assert config.read_text().startswith("[profile broken]")


def test_two_emulators_one_after_the_other_share_nothing(tmp_path: Path) -> None:
    for number in range(2):
        with emulator(tmp_path / str(number)) as running:
            s3 = running.client("s3")
            assert s3.list_buckets()["Buckets"] == []
            s3.create_bucket(Bucket=BUCKET)
            assert running.client("sagemaker").list_training_jobs()["TrainingJobSummaries"] == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--image", "nothing"], "URI=FOLDER"),
        (["--fault", "earthquake"], "'earthquake': there is no such fault"),
        ([], "--folder"),
    ],
)
def test_wrong_arguments_are_told(
    arguments: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ["--folder", str(tmp_path)] if arguments else []
    with pytest.raises(SystemExit):
        main([*folder, *arguments])
    assert told in capsys.readouterr().err


def _running(mark: str) -> int:
    count = 0
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            count += path.read_bytes() == f"sleep\0{mark}\0".encode()
        except OSError:
            continue
    return count


def _is_server(pid: int) -> bool:
    try:
        return b"rehearsal.emulator.server" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
