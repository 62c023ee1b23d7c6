"""Sources brought to where a pipeline on other machines can read them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest
from moto import mock_aws

from darkroom.backends.storage.ingestion import ingest
from darkroom.backends.storage.weights import stage_source
from darkroom.base.errors import UserError
from darkroom.config import Config, DataConfig


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        boto3.client("s3").create_bucket(Bucket="pictures")
        yield "s3://pictures/darkroom"


def config(source: str) -> Config:
    return Config(data=DataConfig(source=source, validation_fraction=0.2, test_fraction=0.2))


@pytest.mark.parametrize("source", ["digits", "s3://other/photos", "https://example.com/a.zip"])
def test_what_is_reachable_from_everywhere_stays_where_it_is(source: str) -> None:
    assert stage_source(config(source), root="s3://unused/x") == source


def test_a_local_folder_arrives_with_the_same_content_splits_and_name(
    bucket: str, image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = image_folder()
    staged = stage_source(config(str(folder)), root=bucket)
    assert staged.startswith(f"{bucket}/datasets/")
    data = config(str(folder)).data
    here = ingest(str(folder), config=data, seed=42, store=tmp_path / "here")
    there = ingest(staged, config=data, seed=7, store=tmp_path / "there")
    assert there.fingerprint == here.fingerprint
    assert there.source == here.source
    assert there.file(there.records[0]).read_bytes() == here.file(here.records[0]).read_bytes()


def test_a_folder_that_cannot_be_trained_on_is_refused_before_anything_is_sent(
    bucket: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError):
        stage_source(config(str(tmp_path / "empty")), root=bucket)
    assert "Contents" not in boto3.client("s3").list_objects_v2(Bucket="pictures")
