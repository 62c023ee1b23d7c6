"""What Ctrl-C stops of a run that goes on elsewhere, and what it says of the rest."""

from pathlib import Path

import pytest

from commands.remote_run import stop_jobs
from darkroom.backends.sagemaker.hosting.rollback import remove_endpoint
from emulated import training_request
from rehearsed_hosting import briefly, enter, rehearsed

pytestmark = pytest.mark.slow


def test_jobs_are_stopped_and_an_endpoint_that_goes_on_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with rehearsed(tmp_path) as opened:
        aws = enter(opened, monkeypatch)
        service = aws.clients.sagemaker
        place = {"OutputDataConfig": {"S3OutputPath": "s3://bucket/out"}}
        tags = [{"Key": "darkroom:run", "Value": "run-1"}]
        request = training_request("sleeper", script="sleep 60", **place, Tags=tags)
        service.create_training_job(**request)
        endpoint = aws.deploy(aws.bundle("pets"), site=aws.site(), name="pets", keep=False)
        stop_jobs("run-1", clients=aws.clients)
        said = capsys.readouterr().err
        assert "Stopping training job sleeper" in said
        assert f"The endpoint {endpoint.name} goes on, and costs" in said
        status = service.describe_training_job(TrainingJobName="sleeper")["TrainingJobStatus"]
        assert status in ("Stopping", "Stopped")
        remove_endpoint(endpoint, clients=aws.clients, pause=briefly)
