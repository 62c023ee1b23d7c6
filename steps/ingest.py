"""Ingest: any source of labelled images to a data set."""

from typing import Annotated

from zenml import step

from darkroom.backends.storage.ingestion import ingest
from darkroom.base.files import workspace
from darkroom.base.progress import terminal_progress
from darkroom.config import DataConfig
from darkroom.config.sagemaker import Placement
from darkroom.data.dataset import Dataset
from materializers.dataset import DatasetMaterializer
from steps.cache_policy import depends_on
from steps.chosen_backend import chosen_backend


@step(
    cache_policy=depends_on("darkroom.backends.storage.ingestion"),
    output_materializers=DatasetMaterializer,
)
def ingest_images(
    source: str,
    source_version: str,
    data: DataConfig,
    seed: int,
    placement: Placement,
) -> Annotated[Dataset, "ingested_dataset"]:
    """Fetch, unpack, split and hash the images of a source.

    Args:
        source: folder, archive, URL, S3 prefix, polyvore:FOLDER or 'digits'.
        source_version: changes when the content of the source does.
        data: splits and limits.
        seed: of the splits that are made here.
        placement: where jobs have to be able to read the images.
    """
    progress = terminal_progress()
    dataset = ingest(source, config=data, seed=seed, store=workspace() / "data", progress=progress)
    return chosen_backend(placement).publish(dataset, progress=progress)
