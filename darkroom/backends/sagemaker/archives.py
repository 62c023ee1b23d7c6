"""A bundle's archive on S3, where models and packages find it."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from botocore.exceptions import ClientError

from darkroom.backends.s3_listing import S3Address
from darkroom.backends.sagemaker.aws_errors import aws_errors_explained, is_missing
from darkroom.backends.sagemaker.clients import Clients
from darkroom.backends.sagemaker.site import Site
from darkroom.backends.storage import encryption_by
from darkroom.files import sha256_of
from darkroom.model.bundle import ARCHIVE_FILE, METADATA_FILE, Bundle, pack
from darkroom.progress import SILENT, Progress

_CONTENT = "darkroom-bundle"
"""Metadata of the object: SHA-256 of the bundle's model.json, which vouches for the rest."""


def publish_bundle(
    bundle: Bundle, *, site: Site, clients: Clients, progress: Progress = SILENT
) -> str:
    """Upload a bundle to models/<version>/model.tar.gz unless it lies there already.

    Returns:
        Its s3:// URI.

    Raises:
        UserError, DarkroomError: S3 refuses, or cannot be reached.
    """
    uri = site.uri("models", bundle.metadata.version, ARCHIVE_FILE)
    address = S3Address.parse(uri)
    content = sha256_of(bundle.folder / METADATA_FILE)
    with aws_errors_explained(uri):
        if _stored_content(address, clients=clients) == content:
            return uri
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
    return uri


def encryption(site: Site) -> dict[str, Any]:
    """What a PutObject needs to say for the configured key."""
    return encryption_by(site.config.kms_key)


def _stored_content(address: S3Address, *, clients: Clients) -> str | None:
    try:
        head = clients.s3.head_object(Bucket=address.bucket, Key=address.key)
    except ClientError as error:
        if not is_missing(error):
            raise
        return None
    return head["Metadata"].get(_CONTENT)
