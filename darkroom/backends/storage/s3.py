"""Folders and archives on S3: fetched once, uploaded once, many objects at a time.

Credentials, region and endpoint come from where boto3 looks for them (environment,
~/.aws, role); AWS_ENDPOINT_URL is honoured.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import boto3
from botocore.config import Config

from darkroom.backends.storage.access import s3_errors_explained
from darkroom.backends.storage.listing import S3Address, S3Listing, list_address
from darkroom.backends.storage.transfer import Download, Pause, Upload, Uploaded, sleep
from darkroom.base.progress import SILENT, Progress
from darkroom.data.hashes import keep_folder
from darkroom.data.image_folder import is_image_name

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


# --- storage ---

_THREADS = 16


def s3_client() -> "S3Client":
    """A client that waits and asks again when S3 is busy.

    Raises:
        UserError: the environment names a profile that does not exist, or no region.
    """
    with s3_errors_explained("s3://"):
        return boto3.client(
            "s3",
            config=Config(
                retries={"mode": "standard", "total_max_attempts": 6},
                max_pool_connections=2 * _THREADS,
            ),
        )


def encryption_by(kms_key: str) -> dict[str, Any]:
    """What a PutObject says to have an object encrypted by a key; empty: nothing."""
    if not kms_key:
        return {}
    return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key}


def look_up(
    uri: str, *, maximum_bytes: int, maximum_files: int, client: "S3Client | None" = None
) -> S3Listing:
    """List what lies at a URI, without fetching it.

    Raises:
        UserError: nothing there, no access, no credentials, unsafe keys, or too much.
        DarkroomError: S3 cannot be reached.
    """
    address = S3Address.parse(uri)
    client = client or s3_client()
    with s3_errors_explained(str(address)):
        return list_address(
            client, address, maximum_bytes=maximum_bytes, maximum_files=maximum_files
        )


def fetch(
    uri: str,
    *,
    store: Path,
    maximum_bytes: int,
    maximum_files: int,
    progress: Progress = SILENT,
    client: "S3Client | None" = None,
    pause: Pause = sleep,
) -> Path:
    """Fetch a prefix, or one object, to `store/s3/<digest of keys, ETags and sizes>`.

    What is there already is not fetched again, neither the whole nor, after an
    interruption, the objects that had arrived. Sizes and checksums are compared; a folder
    that is no longer what was fetched is fetched again.

    Args:
        pause: how to wait between attempts, given seconds.

    Returns:
        The folder, or the file if the URI is that of an object.

    Raises:
        UserError: as `look_up`.
        DarkroomError: S3 cannot be reached, or transfers kept failing.
    """
    client = client or s3_client()
    found = look_up(uri, maximum_bytes=maximum_bytes, maximum_files=maximum_files, client=client)
    folder = store / "s3" / found.version
    download = Download(client, found=found, folder=folder, pause=pause)
    run = partial(download.run, threads=_THREADS, progress=progress)
    keep_folder(folder, store=store, make=run)
    return folder / found.objects[0].path if found.is_archive else folder


def read_object(bucket: str, *, key: str) -> bytes:
    """The content of one object.

    Raises:
        UserError: no such object, no access.
        DarkroomError: S3 cannot be reached.
    """
    with s3_errors_explained(f"s3://{bucket}/{key}"):
        return s3_client().get_object(Bucket=bucket, Key=key)["Body"].read()


def sample_images(
    uri: str, *, count: int, maximum_bytes: int, maximum_files: int
) -> tuple[list[bytes], int]:
    """The contents of a few images below a prefix, spread over it, and how many there are.

    Raises:
        UserError: as `look_up`.
        DarkroomError: S3 cannot be reached.
    """
    client = s3_client()
    found = look_up(uri, maximum_bytes=maximum_bytes, maximum_files=maximum_files, client=client)
    if found.is_archive:
        return [], 0
    images = [item for item in found.objects if is_image_name(item.path)]
    chosen = (
        [images[position * len(images) // count] for position in range(count)] if images else []
    )
    with s3_errors_explained(uri):
        return [
            client.get_object(Bucket=found.address.bucket, Key=item.key)["Body"].read()
            for item in chosen
        ], len(images)


def upload_folder(
    folder: Path,
    *,
    uri: str,
    kms_key: str = "",
    progress: Progress = SILENT,
    client: "S3Client | None" = None,
) -> Uploaded:
    """Upload the files of a folder below a URI; hidden files stay behind.

    What lies there with the same size and content is not sent again, so that an
    interrupted upload goes on where it stopped. Nothing is removed.

    Args:
        kms_key: that encrypts them there; empty: the bucket's default.

    Raises:
        UserError: the folder is missing or empty, no such bucket, no access.
        DarkroomError: S3 cannot be reached.
    """
    address = S3Address.parse(uri)
    with s3_errors_explained(str(address)):
        encryption = encryption_by(kms_key)
        upload = Upload(
            client or s3_client(), folder=folder, address=address, encryption=encryption
        )
        return upload.run(threads=_THREADS, progress=progress)


# --- store of a server's data capture ---
# Data capture of a server on S3; needs s3:PutObject below the prefix, and nothing else.


@dataclass(frozen=True)
class S3Store:
    """Objects below a prefix."""

    address: S3Address
    client: "S3Client"

    @classmethod
    def at(cls, uri: str, *, client: "S3Client | None" = None) -> Self:
        """The store at s3://bucket/prefix.

        Raises:
            UserError: no such URI, or the environment names no region.
        """
        return cls(S3Address.parse(uri), client=client or s3_client())

    def put(self, name: str, content: bytes) -> None:
        """Write an object.

        Raises:
            UserError: S3 refuses.
            DarkroomError: S3 cannot be reached.
        """
        key = f"{self.address.prefix}{name}"
        with s3_errors_explained(str(self.address)):
            self.client.put_object(Bucket=self.address.bucket, Key=key, Body=content)
