"""Images and weights of this machine, brought to where a pipeline on others can read them."""

from pathlib import Path

from darkroom.backends.ingestion import ingest
from darkroom.backends.weights import NAMED, local_weights, publish_weights
from darkroom.config import Config
from darkroom.files import full_disk_explained, workspace
from darkroom.progress import SILENT, Progress
from darkroom.sources.source_names import parse_source


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
    from darkroom.backends.published_datasets import publish

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
