"""A bundle's archive on S3, where models and packages find it."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from botocore.exceptions import ClientError

from darkroom.backends.sagemaker.session import (
    Clients,
    SageMakerContext,
    aws_errors_explained,
    is_missing,
)
from darkroom.backends.storage.listing import S3Address
from darkroom.backends.storage.s3 import encryption_by
from darkroom.base.files import sha256_of
from darkroom.base.progress import SILENT, Progress
from darkroom.models.bundle import ARCHIVE_FILE, METADATA_FILE, Bundle, pack

_CONTENT = "darkroom-bundle"
"""Metadata of the object: SHA-256 of the bundle's model.json, which vouches for the rest."""


def publish_bundle(
    bundle: Bundle, *, site: SageMakerContext, clients: Clients, progress: Progress = SILENT
) -> str:
    """Upload a bundle to models/<place>/model.tar.gz unless it lies there already.

    Returns:
        Its s3:// URI.

    Raises:
        UserError, DarkroomError: S3 refuses, or cannot be reached.
    """
    uri = site.uri("models", bundle.metadata.place, ARCHIVE_FILE)
    publish_at(uri, bundle=bundle, site=site, clients=clients, progress=progress)
    return uri


def publish_at(
    uri: str,
    *,
    bundle: Bundle,
    site: SageMakerContext,
    clients: Clients,
    progress: Progress = SILENT,
) -> None:
    """Upload a bundle to an s3:// URI unless it lies there already.

    Args:
        uri: of the archive itself, not of a folder.
        site: gives the KMS key that the object is encrypted with.

    Raises:
        UserError, DarkroomError: S3 refuses, or cannot be reached.
    """
    address, content = S3Address.parse(uri), content_of(bundle)
    with aws_errors_explained(uri):
        if stored_content(uri, clients=clients) == content:
            return
        with TemporaryDirectory(prefix="darkroom-archive-") as scratch:
            archive = Path(scratch) / ARCHIVE_FILE
            pack(bundle.folder, archive)
            extra = {"Metadata": {_CONTENT: content}, **encryption(site)}
            size = archive.stat().st_size
            with (
                progress.task(f"Uploading to {uri}", total=size) as task,
                archive.open("rb") as file,
            ):
                clients.s3.upload_fileobj(
                    file, address.bucket, address.key, ExtraArgs=extra, Callback=task.advance
                )


def encryption(site: SageMakerContext) -> dict[str, Any]:
    """What a PutObject needs to say for the configured key."""
    return encryption_by(site.config.kms_key)


def content_of(bundle: Bundle) -> str:
    """SHA-256 of the bundle's model.json, by which it is known on S3."""
    return sha256_of(bundle.folder / METADATA_FILE)


def stored_content(uri: str, *, clients: Clients) -> str | None:
    """As `content_of` the bundle whose archive lies there; None: none does.

    Raises:
        botocore.exceptions.ClientError: S3 refuses.
    """
    address = S3Address.parse(uri)
    try:
        head = clients.s3.head_object(Bucket=address.bucket, Key=address.key)
    except ClientError as error:
        if not is_missing(error):
            raise
        return None
    return head["Metadata"].get(_CONTENT)
