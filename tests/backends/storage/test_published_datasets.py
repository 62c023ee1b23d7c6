"""A data set on S3: published once, never seen half, and the same wherever it is fetched."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from moto import mock_aws

from checkout import PHOTOGRAPHS
from darkroom.backends.storage.datasets import (
    channel_uris,
    fetch_published,
    is_published,
    publish,
    read_published,
)
from darkroom.backends.storage.ingestion import describe_source, ingest, source_version
from darkroom.backends.storage.s3 import s3_client
from darkroom.base.errors import DarkroomError, UserError
from darkroom.base.files import sha256_of
from darkroom.config import DataConfig
from darkroom.data.dataset import Dataset
from materializers.dataset import DatasetMaterializer
from pictures import write_image_folder

CLOTHING = PHOTOGRAPHS / "clothing-small.tar"
ROOT = "s3://photos/darkroom/"


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    folder = write_image_folder(tmp_path / "images", per_class=20)
    return ingest(str(folder), config=DataConfig(), seed=1, store=tmp_path / "store")


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        client = s3_client()
        client.create_bucket(Bucket="photos")
        yield client


def requests_of(client: Any) -> Counter[str]:
    """Counts the client's requests from now on."""
    counts: Counter[str] = Counter()

    def count(model: Any, **_: Any) -> None:
        counts[model.name] += 1

    client.meta.events.register("before-call.s3", count)
    return counts


def keys(client: Any) -> list[str]:
    return [item["Key"] for item in client.list_objects_v2(Bucket="photos").get("Contents", [])]


def fail_at(client: Any, number: int) -> Callable[[], None]:
    """Let the client's so many-th upload fail, as if the network were gone."""
    left = [number]

    def fail(**_: Any) -> None:
        left[0] -= 1
        if left[0] <= 0:
            raise KeyboardInterrupt

    client.meta.events.register("before-call.s3.PutObject", fail)
    return lambda: client.meta.events.unregister("before-call.s3.PutObject", fail)


def test_a_published_data_set_is_manifest_and_shards_by_split(s3: Any, dataset: Dataset) -> None:
    published = publish(dataset, root=ROOT, client=s3)
    assert published == replace(dataset, shards=published.shards)
    assert published.shards == f"s3://photos/darkroom/datasets/{dataset.fingerprint}"
    prefix = f"darkroom/datasets/{dataset.fingerprint}"
    folders = Counter(key.removeprefix(prefix).rpartition("/")[0] for key in keys(s3))
    assert folders.keys() == {"/manifest", "/shards/train", "/shards/validation", "/shards/test"}
    assert folders["/shards/train"] > 10
    manifest = json.loads(
        s3.get_object(Bucket="photos", Key=f"{prefix}/manifest/manifest.json")["Body"].read()
    )
    assert manifest["fingerprint"] == dataset.fingerprint
    assert str(dataset.root) not in json.dumps(manifest["root"])


def test_the_channels_of_a_job_are_prefixes_that_hold_objects(s3: Any, dataset: Dataset) -> None:
    uris = channel_uris(publish(dataset, root=ROOT, client=s3).shards)
    assert uris.keys() == {"manifest", "shards", "evaluation_shards"}
    for uri in uris.values():
        prefix = uri.removeprefix("s3://photos/")
        assert prefix.endswith("/")
        assert any(key.startswith(prefix) for key in keys(s3))


def test_publishing_again_is_one_request_that_sends_nothing(s3: Any, dataset: Dataset) -> None:
    first = publish(dataset, root=ROOT, client=s3)
    requests = requests_of(s3)
    assert publish(dataset, root=ROOT, client=s3) == first
    assert requests == {"HeadObject": 1}


def test_an_interrupted_publication_goes_on_and_is_not_seen_before(
    s3: Any, dataset: Dataset
) -> None:
    undo = fail_at(s3, 8)
    with pytest.raises(KeyboardInterrupt):
        publish(dataset, root=ROOT, client=s3)
    undo()
    sent = keys(s3)
    uri = f"{ROOT}datasets/{dataset.fingerprint}"
    assert len(sent) >= 5
    assert not is_published(uri, client=s3)
    requests = requests_of(s3)
    publish(dataset, root=ROOT, client=s3)
    assert requests["PutObject"] == len(keys(s3)) - len(sent)
    assert is_published(uri, client=s3)


def test_a_file_that_changed_is_found_and_nothing_counts_as_published(
    s3: Any, dataset: Dataset
) -> None:
    dataset.file(dataset.records[0]).write_bytes(b"changed")
    with pytest.raises(UserError, match="was changed since it was ingested"):
        publish(dataset, root=ROOT, client=s3)
    assert not any("manifest" in key for key in keys(s3))


@pytest.mark.slow
def test_a_bucket_that_is_missing_is_said(s3: Any, dataset: Dataset) -> None:
    with pytest.raises(UserError, match=r"bucket of 's3://other/.* does not exist"):
        publish(dataset, root="s3://other/darkroom", client=s3)


def test_what_is_fetched_is_what_was_published(s3: Any, dataset: Dataset, tmp_path: Path) -> None:
    published = publish(dataset, root=ROOT, client=s3)
    fetched = fetch_published(published.shards, store=tmp_path / "other", client=s3)
    assert fetched == replace(published, root=fetched.root)
    assert fetched.root.is_relative_to(tmp_path / "other")
    for record in dataset.records:
        assert fetched.file(record).read_bytes() == dataset.file(record).read_bytes()
    assert not list((tmp_path / "other").rglob("*.tar"))


def test_a_data_set_is_fetched_once(s3: Any, dataset: Dataset, tmp_path: Path) -> None:
    uri = publish(dataset, root=ROOT, client=s3).shards
    first = fetch_published(uri, store=tmp_path / "other", client=s3)
    requests = requests_of(s3)
    assert fetch_published(f"{uri}/", store=tmp_path / "other", client=s3) == first
    assert requests == {"GetObject": 1}


def test_a_shard_that_was_removed_is_missed(s3: Any, dataset: Dataset, tmp_path: Path) -> None:
    uri = publish(dataset, root=ROOT, client=s3).shards
    s3.delete_object(Bucket="photos", Key=next(key for key in keys(s3) if "/train/" in key))
    with pytest.raises(UserError, match=r"lack \d+ images.*publish the data set again"):
        fetch_published(uri, store=tmp_path / "other", client=s3)


def test_a_manifest_that_is_none_is_refused(s3: Any, dataset: Dataset) -> None:
    uri = publish(dataset, root=ROOT, client=s3).shards
    key = f"{uri.removeprefix('s3://photos/')}/manifest/manifest.json"
    s3.put_object(Bucket="photos", Key=key, Body=b'{"records": ')
    with pytest.raises(UserError, match="no manifest of a data set"):
        read_published(uri, client=s3)


def test_a_place_where_nothing_is_published_is_said(s3: Any, tmp_path: Path) -> None:
    assert not is_published("s3://photos/nothing", client=s3)
    with pytest.raises(DarkroomError, match="s3://photos/nothing"):
        fetch_published("s3://photos/nothing", store=tmp_path, client=s3)


# As a source.


def test_a_published_data_set_is_a_source(s3: Any, dataset: Dataset, tmp_path: Path) -> None:
    uri = publish(dataset, root=ROOT, client=s3).shards
    config = DataConfig(validation_fraction=0.5, test_fraction=0.4)
    ingested = ingest(uri, config=config, seed=7, store=tmp_path / "other")
    assert ingested.records == dataset.records
    assert all(ingested.file(record).is_file() for record in ingested.records)
    assert describe_source(uri, config=config).line == (
        f"{uri}: a published data set of 60 images in 3 classes"
    )
    assert source_version(uri, config=config) == source_version(f"{uri}/", config=config)


# As an artifact.


@pytest.fixture
def materializer(tmp_path: Path) -> DatasetMaterializer:
    class Store:
        open = staticmethod(open)

    (tmp_path / "artifact").mkdir()
    return DatasetMaterializer(uri=str(tmp_path / "artifact"), artifact_store=Store())


def test_a_component_fetches_the_images_that_are_elsewhere(
    s3: Any,
    dataset: Dataset,
    materializer: DatasetMaterializer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    published = publish(dataset, root=ROOT, client=s3)
    fewer = published.without([published.records[0].path], reason="of a test")
    materializer.save(fewer)
    assert materializer.load(Dataset) == fewer
    dataset.root.rename(tmp_path / "gone")
    assert materializer.load(Dataset) == fewer, "only a component needs the images"
    monkeypatch.setattr("materializers.dataset._in_component", lambda: True)
    loaded = materializer.load(Dataset)
    assert loaded == replace(fewer, root=loaded.root)
    assert loaded.root.is_relative_to(tmp_path / "darkroom-home" / "data" / "published")
    assert all(loaded.file(record).is_file() for record in loaded.records)


def test_a_published_artifact_is_the_same_on_every_machine(
    dataset: Dataset, materializer: DatasetMaterializer
) -> None:
    published = replace(dataset, shards="s3://photos/datasets/1")
    moved = replace(published, root=Path("/elsewhere"))
    hashes = [materializer.compute_content_hash(data) for data in (published, moved)]
    assert hashes[0] == hashes[1]
    unpublished = [replace(data, shards="") for data in (published, moved)]
    assert len({materializer.compute_content_hash(data) for data in unpublished}) == 2


# Real photographs.


@pytest.mark.slow
@pytest.mark.skipif(not CLOTHING.is_file(), reason="needs the photographs of ../shared/data")
def test_photographs_survive_being_published_and_fetched(s3: Any, tmp_path: Path) -> None:
    photographs = ingest(str(CLOTHING), config=DataConfig(), seed=1, store=tmp_path / "store")
    uri = publish(photographs, root=ROOT, client=s3).shards
    sizes = [item["Size"] for item in s3.list_objects_v2(Bucket="photos")["Contents"]]
    assert max(sizes) < 40 * 2**20
    fetched = fetch_published(uri, store=tmp_path / "other", client=s3)
    assert fetched.fingerprint == photographs.fingerprint
    assert len(fetched.records) > 3000
    assert all(sha256_of(fetched.file(r)) == r.sha256 for r in fetched.records[::50])


def test_everything_is_encrypted_by_the_key_that_is_asked_for(dataset: Dataset, s3: Any) -> None:
    uri = publish(dataset, root=ROOT, kms_key="key-1", client=s3).shards
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    keys = [item["Key"] for item in s3.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]]
    heads = [s3.head_object(Bucket=bucket, Key=key) for key in keys]
    assert {head["SSEKMSKeyId"] for head in heads} == {"key-1"}
    assert len(heads) > 3
