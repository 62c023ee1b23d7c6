"""`run.py check` on the remote stacks: what it prints, and how it ends."""

from functools import partial
from pathlib import Path

import pytest

from checkout import CHECKOUT
from commands import check as check_data
from commands.check import check_all
from darkroom.backends.storage.ingestion import SourceDescription
from darkroom.base.errors import UserError
from stacks import values

DIGITS = CHECKOUT / "configs" / "digits.yaml"


@pytest.fixture(autouse=True)
def nobody(monkeypatch, tmp_path) -> None:
    """Neither credentials nor a file with values; what the command sets is undone."""
    load = partial(values.load_values, file=tmp_path / "none.env")
    monkeypatch.setattr(values, "load_values", load)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def check(stack: str, *, data: str | None = None, refresh_prices: bool = False) -> None:
    check_all(stack=stack, config=DIGITS, data=data, overrides=(), refresh_prices=refresh_prices)


def test_a_rehearsal_needs_no_account_and_is_told_what_aws_would_take(capsys) -> None:
    check("rehearsal")
    printed = capsys.readouterr().out
    assert "none: the run starts a stand-in" in printed
    assert "tuning, 2 at once" in printed
    assert printed.endswith("Ready to run.\n")


def test_missing_values_and_bad_data_are_reported_together(capsys) -> None:
    with pytest.raises(UserError) as caught:
        check("sagemaker", data="/no/such/folder")
    text = "\n".join(caught.value.problems)
    for part in ("'/no/such/folder' does not exist", "AWS_REGION is not set", "DARKROOM_ROLE_ARN"):
        assert part in text
    assert "Ready to run." not in capsys.readouterr().out


def test_without_credentials_the_estimate_and_the_servers_are_still_there(
    monkeypatch, capsys
) -> None:
    for name, value in {
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "DARKROOM_ROLE_ARN": "arn:aws:iam::123456789012:role/darkroom-execution",
        "DARKROOM_S3_ROOT": "s3://photos/darkroom",
        "DARKROOM_ECR_REGISTRY": "123456789012.dkr.ecr.us-east-1.amazonaws.com",
        "DARKROOM_MLFLOW_URI": "http://127.0.0.1:5000",
        "DARKROOM_MLFLOW_TOKEN": "secret",
        "ZENML_STORE_URL": "http://localhost:8237",
        # What is derived from these; set here so that it is undone after the test.
        "DARKROOM_BUCKET": "",
        "DARKROOM_MLFLOW_FLAVOR": "",
        "DARKROOM_IMAGE_BUILDER": "",
        "DARKROOM_IMAGE": "",
        "DARKROOM_ENDPOINT_ROLE_ARN": "",
        "DARKROOM_CODEBUILD_PROJECT": "",
        "ZENML_STORE_TYPE": "",
        "SAGEMAKER_SUPPRESS_V2_WARNING": "",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as caught:
        check("sagemaker")
    subjects = [problem.split(":")[0] for problem in caught.value.problems]
    assert subjects == ["credentials", "ZenML server", "MLflow server"]
    printed = capsys.readouterr().out
    assert "✗ credentials: see below" in printed
    assert "✓ instance types: SageMaker knows ml.m5.xlarge, ml.m5.large." in printed
    assert "Together" in printed


def test_prices_are_refreshed_for_aws_alone() -> None:
    with pytest.raises(UserError, match="needs --stack sagemaker, not 'local'"):
        check("local", refresh_prices=True)


def test_a_disk_too_small_for_the_data_stops_a_check_and_is_noted_for_a_rehearsal(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    """145 GB were "10–30 minutes, $0.04" once."""
    known = SourceDescription("an archive, 145 GB", size=145_000_000_000)
    monkeypatch.setattr(check_data, "describe_source", lambda *_, **__: known)
    check("rehearsal")
    printed = capsys.readouterr().out
    assert "! sagemaker.training.volume_gb: 31 GB of it can be used" in printed
    assert "145 GB in 480,000–2,900,000 images" in printed
    with pytest.raises(UserError) as caught:
        check("sagemaker")
    assert any("sagemaker.orchestration.volume_gb: 31 GB" in line for line in caught.value.problems)
