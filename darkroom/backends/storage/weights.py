"""Initial weights from elsewhere: fetched once, then a path like any other; and their way to S3."""

import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from darkroom.backends.storage import s3
from darkroom.backends.storage.ingestion import ingest
from darkroom.base.errors import UserError
from darkroom.base.files import full_disk_explained, sha256_of, workspace
from darkroom.base.progress import SILENT, Progress
from darkroom.config import Config
from darkroom.config.debugging import DiagnosisConfig
from darkroom.data.download import download
from darkroom.data.hashes import HashIndex, hash_files
from darkroom.data.source_names import parse_source
from darkroom.models.bundle import METADATA_FILE, content_file

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


# --- weights ---

NAMED = ("imagenet", "none")
"""Values of `model.weights` that are no place."""
_MAX_BYTES = 8 * 2**30


def local_weights(weights: str, *, store: Path, progress: Progress = SILENT) -> str:
    """`model.weights` as the core takes it: an http(s) or s3 URI becomes a local path.

    Args:
        weights: 'imagenet', 'none', a path, or the URI of a bundle archive or .safetensors.
        store: folder for what is fetched; the same content is fetched once.

    Raises:
        UserError: the path or URI leads nowhere, or may not be read.
    """
    if weights.startswith("s3://"):
        fetched = s3.fetch(
            weights, store=store, maximum_bytes=_MAX_BYTES, maximum_files=10, progress=progress
        )
        return str(_single_file(fetched))
    if weights.startswith(("http://", "https://")):
        return str(download(weights, store=store, maximum_bytes=_MAX_BYTES, progress=progress))
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
        s3.upload_folder(folder, uri=uri, kms_key=kms_key, client=client, progress=progress)
    return uri


def _single_file(fetched: Path) -> Path:
    """A prefix that is one .safetensors object was fetched as a folder of one file."""
    files = list(fetched.iterdir()) if fetched.is_dir() else []
    return files[0] if len(files) == 1 else fetched


# --- staging for jobs elsewhere ---
# Images and weights of this machine, brought to where a pipeline on others can read them.


def stage_source(config: Config, *, root: str, progress: Progress = SILENT) -> str:
    """Publish a source that lies on this machine; others are read where they are.

    Args:
        root: s3://bucket/prefix.

    Returns:
        The source as the pipeline is to name it.

    Raises:
        UserError: the source cannot be used, or the bucket not be written to.
    """
    source = config.data.source
    if parse_source(source).kind in ("digits", "http", "s3"):
        return source
    from darkroom.backends.storage.datasets import publish

    with full_disk_explained(workspace()):
        dataset = ingest(
            source,
            config=config.data,
            seed=config.training.seed,
            store=workspace() / "data",
            progress=progress,
        )
        key = config.sagemaker.kms_key
        return publish(dataset, root=root, kms_key=key, progress=progress).shards


def stage_weights(
    weights: str, *, root: str, kms_key: str = "", progress: Progress = SILENT
) -> str:
    """Publish initial weights that lie on this machine; others are read where they are.

    Args:
        weights: as `model.weights` names them.
        root: s3://bucket/prefix.
        kms_key: that encrypts them there; empty: the bucket's default.

    Returns:
        The weights as the pipeline is to name them.

    Raises:
        UserError: there are no such weights, or the bucket cannot be written to.
    """
    if weights in NAMED or "://" in weights:
        return weights
    path = Path(local_weights(weights, store=workspace() / "data", progress=progress))
    return publish_weights(path.expanduser(), root=root, kms_key=kms_key, progress=progress)


# --- files that a configuration names ---
# What a configuration names beside its data: files whose content decides what comes out.
#
# A path says nothing of what lies there. Earlier results are reused only for the same content.


def weights_version(weights: str, *, store: Path) -> str:
    """A token that changes with the content of the initial weights; empty for named ones.

    Args:
        weights: as `model.weights` has it.
        store: folder that remembers hashes of files that have not changed.

    Raises:
        UserError: the path or address leads nowhere.
    """
    if weights in NAMED:
        return ""
    if weights.startswith(("http://", "https://")):
        from darkroom.data.download import look_up

        return look_up(weights).version
    if weights.startswith("s3://"):
        from darkroom.backends.storage import s3 as storage

        return storage.look_up(weights, maximum_bytes=2**63, maximum_files=1_000).version
    path = content_file(Path(weights).expanduser())
    if not path.is_file():
        raise UserError(
            f"no weights at {weights!r}: model.weights may be 'imagenet', 'none', or the path or "
            "URI of a bundle (a folder or model.tar.gz) or of a .safetensors file"
        )
    return _digest([path], store=store)


def rules_version(diagnosis: DiagnosisConfig, *, store: Path) -> str:
    """A token that changes with the user's rules, and with the recording they compare with.

    Empty where there are none.
    """
    return _digest(_rule_files(diagnosis), store=store) if diagnosis.enabled else ""


def _rule_files(diagnosis: DiagnosisConfig) -> list[Path]:
    from darkroom.debugging.diagnosis import other_run
    from darkroom.debugging.rules.custom import files_of

    files = [path for custom in diagnosis.custom for path in files_of(custom.function)]
    other = other_run(diagnosis)
    recorded = [path for path in other.root.rglob("*") if path.is_file()] if other else []
    return sorted({*files, *recorded})


def _digest(files: Iterable[Path], *, store: Path) -> str:
    """Of the files' content, wherever they lie; empty for none."""
    paths = [os.path.abspath(path) for path in files]
    if not paths:
        return ""
    with HashIndex.in_store(store) as index:
        hashes = hash_files(paths, index=index)
    text = "\n".join(f"{Path(path).name} {hashes[path]}" for path in paths)
    return hashlib.sha256(text.encode()).hexdigest()
