"""Data sets on S3, as shards: published once, fetched once.

    <root>/datasets/<fingerprint>/manifest/manifest.json
    <root>/datasets/<fingerprint>/shards/<split>/<split>-<number>-<digest>.tar

The manifest is sent last: where it is, everything is. Shards are named by their content, so
an interrupted publication goes on where it stopped.
"""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError
from filelock import FileLock

from darkroom.backends.storage import s3
from darkroom.backends.storage.access import s3_errors_explained
from darkroom.backends.storage.listing import S3Address, list_objects
from darkroom.base.concurrency import map_concurrently
from darkroom.base.progress import SILENT, Progress
from darkroom.config.sections import SPLITS
from darkroom.data.dataset import Dataset
from darkroom.data.shards import (
    Shard,
    Unpacked,
    check_complete,
    pack_shard,
    plan_shards,
    unpack_shards,
)
from darkroom.training.channels import (
    EVALUATION_SHARDS_CHANNEL,
    MANIFEST_CHANNEL,
    MANIFEST_FILE,
    SHARDS_CHANNEL,
    parse_manifest,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_MANIFEST, _SHARDS = "manifest", "shards"
_THREADS = 6
"""Shards that are packed and sent at once, and so held in memory."""
_NO_LIMIT = 2**63


def channel_uris(uri: str) -> dict[str, str]:
    """The S3 prefixes of a training job's channels for a published data set.

    Args:
        uri: `Dataset.shards`.
    """
    return {
        MANIFEST_CHANNEL: f"{uri}/{_MANIFEST}/",
        SHARDS_CHANNEL: f"{uri}/{_SHARDS}/train/",
        EVALUATION_SHARDS_CHANNEL: f"{uri}/{_SHARDS}/validation/",
    }


def publish(
    dataset: Dataset,
    *,
    root: str,
    kms_key: str = "",
    client: "S3Client | None" = None,
    progress: Progress = SILENT,
) -> Dataset:
    """Put a data set on S3 as shards, unless it is there.

    Args:
        root: s3://bucket/prefix below which it goes.
        kms_key: that encrypts it there; empty: the bucket's default.

    Returns:
        The data set, which knows where it is published.

    Raises:
        UserError: files were changed or removed since they were ingested; no such bucket,
            no access.
        DarkroomError: S3 cannot be reached.
    """
    uri = f"{root.rstrip('/')}/datasets/{dataset.fingerprint}"
    published = replace(dataset, shards=uri)
    client = client or s3.s3_client()
    if not is_published(uri, client=client):
        _Publication(client, dataset=published, kms_key=kms_key).run(progress=progress)
    return published


def is_published(uri: str, *, client: "S3Client | None" = None) -> bool:
    """Whether there is a published data set at a URI: one request.

    Raises:
        UserError: no such bucket, no access.
        DarkroomError: S3 cannot be reached.
    """
    address = _manifest_address(uri)
    client = client or s3.s3_client()
    with s3_errors_explained(str(address)):
        try:
            client.head_object(Bucket=address.bucket, Key=address.key)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return False
            raise
    return True


def read_published(uri: str, *, client: "S3Client | None" = None) -> Dataset:
    """A published data set's manifest; its root is empty, the images are not fetched.

    Raises:
        UserError: there is none, or it is damaged.
        DarkroomError: S3 cannot be reached.
    """
    address = _manifest_address(uri)
    client = client or s3.s3_client()
    with s3_errors_explained(str(address)):
        answer = client.get_object(Bucket=address.bucket, Key=address.key)
        content = answer["Body"].read()
    return replace(parse_manifest(content, place=str(address)), shards=uri.rstrip("/"))


def fetch_published(
    uri: str,
    *,
    store: Path,
    client: "S3Client | None" = None,
    progress: Progress = SILENT,
) -> Dataset:
    """Bring a published data set to `store/published/<fingerprint>`, unless it is there.

    Raises:
        UserError: there is none, shards are missing or damaged, no access.
        DarkroomError: S3 cannot be reached, or transfers kept failing.
    """
    client = client or s3.s3_client()
    dataset = read_published(uri, client=client)
    folder = store / "published" / dataset.fingerprint
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.fetch.lock"):
        unpacked = _bring(dataset, folder=folder, store=store, client=client, progress=progress)
    check_complete(dataset.records, unpacked=unpacked, what="images", place=uri)
    return replace(dataset, root=unpacked.root)


def _bring(
    dataset: Dataset, *, folder: Path, store: Path, client: "S3Client", progress: Progress
) -> Unpacked:
    if folder.is_dir():
        return unpack_shards([], dataset=dataset, folder=folder)
    fetched = s3.fetch(
        f"{dataset.shards}/{_SHARDS}",
        store=store,
        maximum_bytes=_NO_LIMIT,
        maximum_files=_NO_LIMIT,
        client=client,
        progress=progress,
    )
    archives = sorted(fetched.rglob("*.tar"))
    unpacked = unpack_shards(archives, dataset=dataset, folder=folder, progress=progress)
    shutil.rmtree(fetched)
    return unpacked


def _manifest_address(uri: str) -> S3Address:
    address = S3Address.parse(uri)
    return S3Address(address.bucket, f"{address.prefix}{_MANIFEST}/{MANIFEST_FILE}")


class _Publication:
    """A data set on its way to S3."""

    def __init__(self, client: "S3Client", *, dataset: Dataset, kms_key: str) -> None:
        self._client, self._dataset = client, dataset
        self._encryption = s3.encryption_by(kms_key)
        self._address = S3Address.parse(f"{dataset.shards}/{_SHARDS}")

    def run(self, *, progress: Progress) -> None:
        """Send the shards that are not there, then the manifest."""
        images = len(self._dataset.records)
        with (
            s3_errors_explained(str(self._address)),
            progress.task(f"Publishing to {self._dataset.shards}", total=images) as task,
        ):
            there = {item["Key"] for item in list_objects(self._client, self._address)}
            shards = {
                f"{self._address.prefix}{split}/{shard.name}": shard
                for split in SPLITS
                for shard in plan_shards(self._dataset, split=split)
            }
            missing = [key for key in shards if key not in there]
            task.advance(sum(len(shards[key].records) for key in shards.keys() & there))
            for sent in map_concurrently(
                lambda key: self._send(key, shard=shards[key]), missing, threads=_THREADS
            ):
                task.advance(sent)
            self._send_manifest()

    def _send(self, key: str, *, shard: Shard) -> int:
        """Pack and send a shard; how many images it has."""
        with pack_shard(shard, root=self._dataset.root) as archive:
            self._client.put_object(
                Bucket=self._address.bucket, Key=key, Body=archive, **self._encryption
            )
        return len(shard.records)

    def _send_manifest(self) -> None:
        address = _manifest_address(self._dataset.shards)
        # The folder of whoever publishes means nothing elsewhere.
        manifest = replace(self._dataset, root=Path())
        self._client.put_object(
            Bucket=address.bucket,
            Key=address.key,
            Body=manifest.to_json().encode(),
            ContentType="application/json",
            **self._encryption,
        )
