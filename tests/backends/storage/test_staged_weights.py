"""Initial weights brought to where a pipeline on other machines can read them."""

from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto import mock_aws

from darkroom.backends.storage.weights import local_weights, stage_weights
from darkroom.base.errors import UserError
from darkroom.models.bundle import METADATA_FILE
from small_bundles import write_small_bundle

pytestmark = pytest.mark.slow


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        boto3.client("s3").create_bucket(Bucket="pictures")
        yield "s3://pictures/darkroom"


@pytest.mark.parametrize(
    "weights", ["imagenet", "none", "s3://other/a.safetensors", "https://example.com/model.tar.gz"]
)
def test_what_is_reachable_from_everywhere_stays_where_it_is(weights: str) -> None:
    assert stage_weights(weights, root="s3://unused/x") == weights


def test_a_file_arrives_as_it_was(root: str, tmp_path: Path) -> None:
    weights = tmp_path / "mine.safetensors"
    weights.write_bytes(b"weights")
    staged = stage_weights(str(weights), root=root)
    assert staged.startswith(f"{root}/weights/")
    there = Path(local_weights(staged, store=tmp_path / "there"))
    assert (there.name, there.read_bytes()) == ("mine.safetensors", b"weights")


def test_other_content_of_the_same_name_is_another_place(root: str, tmp_path: Path) -> None:
    weights = tmp_path / "mine.safetensors"
    weights.write_bytes(b"weights")
    first = stage_weights(str(weights), root=root)
    assert stage_weights(str(weights), root=root) == first
    weights.write_bytes(b"others")
    assert stage_weights(str(weights), root=root) != first


def test_a_bundle_arrives_with_all_its_files(root: str, tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path / "bundle")
    there = Path(local_weights(stage_weights(str(bundle), root=root), store=tmp_path / "there"))
    assert {path.name: path.read_bytes() for path in there.iterdir()} == {
        path.name: path.read_bytes() for path in bundle.iterdir()
    }


@pytest.mark.parametrize("name", ["nowhere.safetensors", "."])
def test_what_is_no_weights_is_refused_by_its_name(name: str, root: str, tmp_path: Path) -> None:
    wrong = tmp_path / name
    assert not (wrong / METADATA_FILE).exists()
    with pytest.raises(UserError, match=str(wrong)):
        stage_weights(str(wrong), root=root)
