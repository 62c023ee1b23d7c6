"""Images that listen on port 8080 whatever they are told, as they may on AWS."""

import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from rehearsal.emulator.records import records
from rehearsal.emulator.server import Running, emulator
from rehearsal.hosting import servers
from rehearsal.jobs.container import is_sandboxed
from tiny_images import write_tiny_image

pytestmark = pytest.mark.slow

IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/tiny:1"
GIVEN = 'int(os.environ["SAGEMAKER_BIND_TO_PORT"])'


def is_taken() -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", servers.PORT)) == 0


def create(running: Running, name: str) -> dict[str, Any]:
    """An endpoint that answers with its own name, when it has come up or failed."""
    sagemaker = running.client("sagemaker")
    container = {"Image": IMAGE, "Environment": {"NAME": name}}
    role = "arn:aws:iam::123456789012:role/endpoints"
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=role, PrimaryContainer=container)
    variant = {
        "VariantName": "a",
        "ModelName": name,
        "InitialInstanceCount": 1,
        "InstanceType": "ml.m5.large",
    }
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    deadline = time.monotonic() + 30
    while (found := sagemaker.describe_endpoint(EndpointName=name))["EndpointStatus"] == "Creating":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return dict(found)


def stubborn_image(folder: Path) -> Path:
    """An image that listens on 8080 only."""
    image = write_tiny_image(folder)
    serve = image / "bin" / "serve"
    serve.write_text(serve.read_text().replace(GIVEN, "8080"))
    return image


def test_each_has_the_port_in_a_network_of_its_own(tmp_path: Path) -> None:
    image = stubborn_image(tmp_path / "image")
    with emulator(tmp_path / "aws", images={IMAGE: image}, startup_seconds=10) as running:
        if not is_sandboxed(running.state):
            pytest.skip("namespaces are not allowed on this machine")
        runtime = running.client("sagemaker-runtime")
        for name in ("first", "second"):
            assert create(running, name)["EndpointStatus"] == "InService"
        for name in ("first", "second"):
            answer = runtime.invoke_endpoint(EndpointName=name, Body=b"hi")["Body"].read()
            assert answer == f"{name}:hi".encode()


def test_one_is_found_there_and_a_second_is_not_taken_for_it(tmp_path: Path) -> None:
    if is_taken():
        pytest.skip("port 8080 of this machine is in use")
    image = stubborn_image(tmp_path / "image")
    options: dict[str, Any] = {"startup_seconds": 10, "sandboxed": False}
    with emulator(tmp_path / "aws", images={IMAGE: image}, **options) as running:
        assert create(running, "first")["EndpointStatus"] == "InService"
        runtime = running.client("sagemaker-runtime")
        assert runtime.invoke_endpoint(EndpointName="first", Body=b"hi")["Body"].read() == (
            b"first:hi"
        )
        assert any("port 8080" in each for each in records(running.state).not_covered)
        second = create(running, "second")
        assert second["EndpointStatus"] == "Failed"
        assert "did not pass the ping health check" in second["FailureReason"]
        logs = list((tmp_path / "aws" / "serving").glob("*.log"))
        assert any("GET /ping was not answered" in log.read_text() for log in logs)
    assert not is_taken()


def test_only_who_listens_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        own.listen()
        monkeypatch.setattr(servers, "PORT", own.getsockname()[1])
        assert servers.is_listening_there(os.getpid())
        assert servers.is_listening_there(os.getppid())
        assert not servers.is_listening_there(2**22 + 1)
    assert not servers.is_listening_there(os.getpid())
