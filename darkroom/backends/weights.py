"""Initial weights from elsewhere: fetched once, then a path like any other."""

from pathlib import Path

from darkroom.backends import storage
from darkroom.progress import SILENT, Progress
from darkroom.sources.download import download

_MAXIMUM_BYTES = 8 * 2**30


def local_weights(weights: str, *, store: Path, progress: Progress = SILENT) -> str:
    """`model.weights` as the core takes it: an http(s) or s3 URI becomes a local path.

    Args:
        weights: 'imagenet', 'none', a path, or the URI of a bundle archive or .safetensors.
        store: folder for what is fetched; the same content is fetched once.

    Raises:
        UserError: the URI leads nowhere, or may not be read.
    """
    if weights.startswith("s3://"):
        fetched = storage.fetch(
            weights, store=store, maximum_bytes=_MAXIMUM_BYTES, maximum_files=10, progress=progress
        )
        return str(_single_file(fetched))
    if weights.startswith(("http://", "https://")):
        return str(download(weights, store=store, maximum_bytes=_MAXIMUM_BYTES, progress=progress))
    return weights


def _single_file(fetched: Path) -> Path:
    """A prefix that is one .safetensors object was fetched as a folder of one file."""
    files = list(fetched.iterdir()) if fetched.is_dir() else []
    return files[0] if len(files) == 1 else fetched
