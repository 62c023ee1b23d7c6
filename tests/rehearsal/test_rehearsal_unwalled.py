"""Jobs where walls are missing, or have doors to more: each in an emulator of its own."""

import signal
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from emulated import BUCKET, IMAGES, trained
from escaping import follow_links, python, write_secret
from rehearsal.emulator.records import records
from rehearsal.emulator.server import emulator
from rehearsal.jobs import init_process, sandbox

pytestmark = pytest.mark.slow  # they start processes


def test_only_a_job_whose_request_names_a_service_reaches_the_services(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as service:
        url = f"http://127.0.0.1:{service.getsockname()[1]}"
        threading.Thread(target=_greet, args=(service,), daemon=True).start()
        code = "import os, socket; c = socket.create_connection(('127.0.0.1', %d), 2); "
        code = code % service.getsockname()[1] + "print(c.recv(9).decode())"
        with emulator(tmp_path / "aws", images=IMAGES, services=(url,)) as running:
            running.client("s3").create_bucket(Bucket=BUCKET)
            sagemaker = running.client("sagemaker")
            store = {"ZENML_STORE_URL": url}
            named = trained(sagemaker, python("named", code, Environment=store))
            other = trained(sagemaker, python("other", code))
    assert named["TrainingJobStatus"] == "Completed", named.get("FailureReason")
    assert other["TrainingJobStatus"] == "Failed"


def _greet(service: socket.socket) -> None:
    while True:
        try:
            connection, _ = service.accept()
        except OSError:
            return
        connection.sendall(b"hello")
        connection.close()


def test_no_link_is_followed_where_jobs_are_plain_processes(tmp_path: Path) -> None:
    secret = write_secret(tmp_path / "secret")
    options = {"sandboxed": False, "checkpoint_seconds": 0.1}
    with emulator(tmp_path / "aws", images=IMAGES, **options) as plain:
        plain.client("s3").create_bucket(Bucket=BUCKET)
        follow_links(plain, secret=secret)


def test_without_namespaces_no_wall_is_claimed(tmp_path: Path) -> None:
    with emulator(tmp_path / "aws", sandboxed=False) as plain:
        found = records(plain.state)
    assert found.walls == []
    assert len(found.walls_missing) == len(sandbox.WALLS)


def test_a_program_that_has_no_group_of_its_own_yet_is_ended_too() -> None:
    with subprocess.Popen(["sleep", "600"]) as program:  # in this process's group
        init_process.kill(program.pid)
        assert program.wait(20) == -signal.SIGKILL
    init_process.kill(program.pid)  # harmless
