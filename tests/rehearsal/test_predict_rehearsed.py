"""`run.py predict --stack sagemaker`, against the stand-in for AWS."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from commands.declared import predict
from darkroom.base.errors import UserError
from rehearsed_hosting import Rehearsed, enter, rehearsed

pytestmark = pytest.mark.slow  # it starts an emulator and an endpoint's processes


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsed]:
    with rehearsed(tmp_path_factory.mktemp("rehearsed")) as aws:
        yield aws


@pytest.fixture
def aws(opened: Rehearsed, monkeypatch: pytest.MonkeyPatch) -> Rehearsed:
    values = {
        "DARKROOM_ROLE_ARN": "arn:aws:iam::123456789012:role/jobs",
        "DARKROOM_S3_ROOT": "s3://bucket/prefix",
        "DARKROOM_ECR_REGISTRY": "123456789012.dkr.ecr.us-east-1.amazonaws.com",
        "DARKROOM_IMAGE": "123456789012.dkr.ecr.us-east-1.amazonaws.com/darkroom:1",
        "DARKROOM_MLFLOW_URI": "http://127.0.0.1:1",
        "DARKROOM_MLFLOW_TOKEN": "none",
        "ZENML_STORE_URL": "http://127.0.0.1:1",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return enter(opened, monkeypatch)


def run(*arguments: str) -> None:
    predict.main(list(arguments), standalone_mode=False)


def test_an_endpoint_gives_the_rows_that_its_bundle_does(
    aws: Rehearsed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.kept("rows")
    broken, large = tmp_path / "broken.png", tmp_path / "large.png"
    broken.write_text("no picture")
    large.write_bytes(bytes(7 * 2**20))
    sources = [str(path) for path in (*aws.images, broken, large)]
    run(*sources, "--json", "--model", str(aws.bundle("rows").folder))
    expected = json.loads(capsys.readouterr().out)
    run(*sources, "--json", "--endpoint", "rows", "--stack", "sagemaker")
    rows = json.loads(capsys.readouterr().out)
    for row, wanted in zip(rows, expected, strict=True):
        assert row["source"] == wanted["source"]
        assert row["class"] == wanted["class"]
        assert row["label"] == wanted["label"]
        assert row["probability"] == pytest.approx(wanted["probability"], abs=1e-3)
    assert "answers 400" in rows[-2]["error"]
    assert "6291456" in rows[-1]["error"]


def test_an_endpoint_that_is_not_there_is_the_users_mistake(aws: Rehearsed) -> None:
    with pytest.raises(UserError, match="there is no endpoint 'absent'"):
        run(str(aws.images[0]), "--endpoint", "absent", "--stack", "sagemaker")
