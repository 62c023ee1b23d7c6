"""SageMaker's own Python SDK against the rehearsal: an independent check of it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from checkout import TESTS
from rehearsal.emulator.records import records
from rehearsal.emulator.server import emulator
from tiny_images import model_archive, write_tiny_image

IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/tiny:1"
SETTINGS = """
SchemaVersion: '1.0'
SageMaker:
  PythonSDK:
    Modules:
      TelemetryOptOut: true
"""


@pytest.mark.slow
def test_a_script_for_the_sdk_runs_unchanged(tmp_path: Path) -> None:
    image = write_tiny_image(tmp_path / "image")
    with emulator(tmp_path / "aws", images={IMAGE: image}) as running:
        s3 = running.client("s3")
        s3.create_bucket(Bucket="bucket")
        for name in ("one", "two"):
            s3.put_object(Bucket="bucket", Key=f"{name}.tar.gz", Body=model_archive(name))
        s3.put_object(Bucket="bucket", Key="in/a.txt", Body=b"a")
        done = subprocess.run(
            [sys.executable, TESTS / "shared" / "sagemaker_sdk_script.py", IMAGE],
            env=environment(running.url, folder=tmp_path),
            capture_output=True,
            text=True,
            timeout=200,
        )
        told = records(running.state)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    wanted = [
        "tuned 3 True",
        "served one:hello",
        "updated two:hello",
        "transformed two:a",
        "registered model-package/sdk/1",
    ]
    assert [line for line in lines if line in wanted] == wanted, done.stdout
    assert told.mistakes == []


def environment(url: str, *, folder: Path) -> dict[str, str]:
    """The user's: his shell's PATH, a home of his own, keys, and where AWS is."""
    settings = folder / "sagemaker.yaml"
    settings.write_text(SETTINGS)
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "AWS_ENDPOINT_URL": url,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "AKIAUSER",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "SAGEMAKER_ADMIN_CONFIG_OVERRIDE": str(settings),
        "SAGEMAKER_USER_CONFIG_OVERRIDE": str(settings),
        "SAGEMAKER_SUPPRESS_V2_WARNING": "1",
    }
