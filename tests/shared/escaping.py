"""Jobs that try to lead the emulator outside, shared by tests with and without walls."""

from pathlib import Path
from typing import Any

from emulated import BUCKET, archive_of, keys, trained, training_request
from rehearsal.emulator.server import Running


def python(name: str, code: str, **more: Any) -> dict[str, Any]:
    """A job that runs Python, in pieces as long as SageMaker takes them."""
    request = training_request(name, **more)
    pieces = [code[start : start + 250] for start in range(0, len(code), 250)]
    request["AlgorithmSpecification"] |= {
        "ContainerEntrypoint": ["python", "-c", "import sys; exec(''.join(sys.argv[1:]))"],
        "ContainerArguments": pieces,
    }
    return request


def write_secret(folder: Path) -> Path:
    """A folder of the user's."""
    folder.mkdir()
    (folder / "data").write_text("the user's own")
    (folder / "failure").write_text("the user's own")
    return folder


def follow_links(running: Running, *, secret: Path) -> None:
    """Links where the model, checkpoints, output and failure should be lead nowhere."""
    script = (
        "cd ${SAGEMAKER_BASE_DIR:-/opt/ml}; rm -rf model checkpoints output; "
        f"ln -s {secret} model; ln -s {secret} checkpoints; ln -s {secret} output; sleep 0.5; "
        "exit ${CODE:-0}"
    )
    sagemaker, s3 = running.client("sagemaker"), running.client("s3")
    config = {"S3Uri": f"s3://{BUCKET}/mirrored"}
    job = trained(sagemaker, training_request("links", script=script, CheckpointConfig=config))
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert archive_of(s3, job["ModelArtifacts"]["S3ModelArtifacts"]) == {}
    assert keys(s3, "out/links/") == ["out/links/output/model.tar.gz"]
    assert keys(s3, "mirrored") == []
    failing = training_request("links-failing", script=script, Environment={"CODE": "3"})
    reason = trained(sagemaker, failing)["FailureReason"]
    assert "own" not in reason
    assert reason.endswith("exit code: 3")
    assert sorted(path.name for path in secret.iterdir()) == ["data", "failure"]
