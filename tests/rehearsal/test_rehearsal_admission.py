"""Nobody else on this machine can make the emulator run programs."""

import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest
from botocore.exceptions import ClientError

from rehearsal.emulator.server import Running, emulator
from rehearsal.session import start_emulator

pytestmark = pytest.mark.slow


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Running]:
    with emulator(tmp_path / "aws", access_key="AKIASECRET") as running:
        yield running


def client(running: Running, service: str, *, key: str) -> Any:
    return boto3.client(
        service,
        endpoint_url=running.url,
        region_name="us-east-1",
        aws_access_key_id=key,
        aws_secret_access_key="any",
    )


def test_whoever_knows_the_key_is_let_in(guarded: Running) -> None:
    client(guarded, "s3", key="AKIASECRET").create_bucket(Bucket="pictures")
    assert (
        client(guarded, "sagemaker", key="AKIASECRET").list_training_jobs()["TrainingJobSummaries"]
        == []
    )


@pytest.mark.parametrize(
    ("service", "call"), [("s3", "list_buckets"), ("sagemaker", "list_models")]
)
def test_a_stranger_is_refused(guarded: Running, service: str, call: str) -> None:
    with pytest.raises(ClientError, match=r"UnrecognizedClientException|invalid"):
        getattr(client(guarded, service, key="AKIAOTHER"), call)()


@pytest.mark.parametrize("path", ["/_rehearsal/records", "/_rehearsal/credentials", "/"])
def test_unsigned_requests_are_refused(guarded: Running, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(guarded.url + path)


def test_a_presigned_url_works(guarded: Running) -> None:
    s3 = client(guarded, "s3", key="AKIASECRET")
    s3.create_bucket(Bucket="pictures")
    s3.put_object(Bucket="pictures", Key="a", Body=b"cat")
    url = s3.generate_presigned_url("get_object", Params={"Bucket": "pictures", "Key": "a"})
    assert urllib.request.urlopen(url).read() == b"cat"
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(url.replace("AKIASECRET", "AKIAOTHER"))


def test_the_key_of_a_program_is_seen_by_nobody_else(tmp_path: Path) -> None:
    service = start_emulator(tmp_path, access_key="AKIASECRET", region="us-east-1")
    try:
        service.wait()
        process = psutil.Process(service.process.pid)
        lines = [each.cmdline() for each in (process, *process.children(recursive=True))]
        assert not [line for line in lines if "AKIASECRET" in " ".join(line)]
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(f"{service.url}/_rehearsal/records")
    finally:
        service.stop()


def test_health_is_open(guarded: Running) -> None:
    assert urllib.request.urlopen(f"{guarded.url}/_rehearsal/health").read() == b"ok"
