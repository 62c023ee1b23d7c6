"""Initial weights from elsewhere: fetched once, then a path like any other; and their way to S3."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from darkroom.backends import storage
from darkroom.errors import UserError
from darkroom.files import sha256_of
from darkroom.model.bundle import METADATA_FILE
from darkroom.progress import SILENT, Progress
from darkroom.sources.download import download

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

NAMED = ("imagenet", "none")
"""Values of `model.weights` that are no place."""
_MAXIMUM_BYTES = 8 * 2**30


def local_weights(weights: str, *, store: Path, progress: Progress = SILENT) -> str:
    """`model.weights` as the core takes it: an http(s) or s3 URI becomes a local path.

    Args:
        weights: 'imagenet', 'none', a path, or the URI of a bundle archive or .safetensors.
        store: folder for what is fetched; the same content is fetched once.

    Raises:
        UserError: the path or URI leads nowhere, or may not be read.
    """
    if weights.startswith("s3://"):
        fetched = storage.fetch(
            weights, store=store, maximum_bytes=_MAXIMUM_BYTES, maximum_files=10, progress=progress
        )
        return str(_single_file(fetched))
    if weights.startswith(("http://", "https://")):
        return str(download(weights, store=store, maximum_bytes=_MAXIMUM_BYTES, progress=progress))
    if weights not in NAMED and not Path(weights).expanduser().exists():
        raise UserError(
            f"no weights at {weights!r}: model.weights may be 'imagenet', 'none', or the path or "
            "URI of a bundle (a folder or model.tar.gz) or of a .safetensors file"
        )
    return weights


def publish_weights(
    path: Path,
    *,
    root: str,
    kms_key: str = "",
    client: "S3Client | None" = None,
    progress: Progress = SILENT,
) -> str:
    """Upload a file, or a bundle's folder, below a prefix that is named by its content.

    Args:
        root: s3://bucket/prefix.
        kms_key: that encrypts it there; empty: the bucket's default.

    Returns:
        The prefix, which `local_weights` takes.

    Raises:
        UserError: no such bucket, no access.
        DarkroomError: S3 cannot be reached.
    """
    content = path / METADATA_FILE if path.is_dir() else path
    if not content.exists():
        raise UserError(f"model.weights is {str(path)!r}, a folder that is no bundle")
    uri = f"{root}/weights/{sha256_of(content)[:16]}/"
    with TemporaryDirectory(prefix="darkroom-weights-") as scratch:
        folder = path
        if not path.is_dir():
            folder = Path(scratch)
            shutil.copyfile(path, folder / path.name)
        storage.upload_folder(folder, uri=uri, kms_key=kms_key, client=client, progress=progress)
    return uri


def _single_file(fetched: Path) -> Path:
    """A prefix that is one .safetensors object was fetched as a folder of one file."""
    files = list(fetched.iterdir()) if fetched.is_dir() else []
    return files[0] if len(files) == 1 else fetched
