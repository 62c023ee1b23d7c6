"""A data set as an artifact: its manifest. The images stay where they were ingested.

A component on a machine that does not have them fetches those of a published data set.
"""

import hashlib
import json
import os
from dataclasses import replace
from typing import ClassVar

from zenml.enums import ArtifactType, VisualizationType
from zenml.materializers.base_materializer import BaseMaterializer
from zenml.metadata.metadata_types import MetadataType
from zenml.steps.step_context import StepContext

from darkroom.base.errors import UserError
from darkroom.base.files import workspace
from darkroom.base.progress import terminal_progress
from darkroom.config.sections import SPLITS
from darkroom.data.dataset import Dataset

_MANIFEST = "manifest.json"
_COUNTS = "counts.csv"


class DatasetMaterializer(BaseMaterializer):
    """Stores the manifest, shows the counts by class and split."""

    ASSOCIATED_TYPES: ClassVar[tuple[type, ...]] = (Dataset,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA

    def load(self, data_type: type[Dataset]) -> Dataset:
        """Read the manifest; a component that gets it finds the images too.

        Whoever loads it outside a component wants to know of the images, not to see them.

        Raises:
            UserError: it is not what was written.
        """
        path = os.path.join(self.uri, _MANIFEST)
        with self.artifact_store.open(path, "r") as file:
            text = file.read()
        try:
            dataset = Dataset.from_json(text)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"the data set's {path!r} is not what was written: {error}") from error
        return _with_images(dataset) if _in_component() else dataset

    def save(self, data: Dataset) -> None:
        """Write the manifest."""
        with self.artifact_store.open(os.path.join(self.uri, _MANIFEST), "w") as file:
            file.write(data.to_json())

    def save_visualizations(self, data: Dataset) -> dict[str, VisualizationType]:
        """A table of images by class and split."""
        counts = data.counts()
        lines = [",".join(("class", *SPLITS))]
        lines += [
            ",".join((f'"{name}"', *(str(counts[split][name]) for split in SPLITS)))
            for name in data.classes
        ]
        path = os.path.join(self.uri, _COUNTS)
        with self.artifact_store.open(path, "w") as file:
            file.write("\n".join(lines) + "\n")
        return {path: VisualizationType.CSV}

    def extract_metadata(self, data: Dataset) -> dict[str, MetadataType]:
        """Counts and fingerprint."""
        return {
            "fingerprint": data.fingerprint,
            "source": data.source,
            "images": len(data.records),
            "classes": len(data.classes),
            **{f"{split}_images": len(data.split(split)) for split in SPLITS},
            "left_out": dict(data.left_out),
        }

    def compute_content_hash(self, data: Dataset) -> str:
        """Equal content in the same place reuses what was computed from it.

        The place of a published data set is where it is published: each machine that works
        on it has the images in a folder of its own.
        """
        # Findings depend on these, too.
        told = {
            "groups": {record.path: record.group for record in data.records if record.group},
            "lost": data.provenance.lost,
        }
        digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
        known = f"-{digest[:16]}" if any(told.values()) else ""
        return f"{data.fingerprint}-{data.shards or data.root}{known}"


def _in_component() -> bool:
    return StepContext.get() is not None


def _with_images(dataset: Dataset) -> Dataset:
    """The data set with a root that holds its files; one published is fetched where needed."""
    if not dataset.shards or all(dataset.file(record).is_file() for record in dataset.records):
        return dataset
    from darkroom.backends.storage.datasets import fetch_published

    published = fetch_published(
        dataset.shards, store=workspace() / "data", progress=terminal_progress()
    )
    return replace(dataset, root=published.root)
