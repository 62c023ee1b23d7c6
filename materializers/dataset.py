"""A data set as an artifact: its manifest. The images stay where they were ingested."""

from pathlib import Path
from typing import ClassVar

from zenml.enums import ArtifactType, VisualizationType
from zenml.materializers.base_materializer import BaseMaterializer
from zenml.metadata.metadata_types import MetadataType

from darkroom.dataset import SPLITS, Dataset

_MANIFEST = "manifest.json"
_COUNTS = "counts.csv"


class DatasetMaterializer(BaseMaterializer):
    """Stores the manifest, shows the counts by class and split."""

    ASSOCIATED_TYPES: ClassVar[tuple[type, ...]] = (Dataset,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA

    def load(self, data_type: type[Dataset]) -> Dataset:
        """Read the manifest."""
        with self.artifact_store.open(str(Path(self.uri, _MANIFEST)), "r") as file:
            return Dataset.from_json(file.read())

    def save(self, data: Dataset) -> None:
        """Write the manifest."""
        with self.artifact_store.open(str(Path(self.uri, _MANIFEST)), "w") as file:
            file.write(data.to_json())

    def save_visualizations(self, data: Dataset) -> dict[str, VisualizationType]:
        """A table of images by class and split."""
        counts = data.counts()
        lines = [",".join(("class", *SPLITS))]
        lines += [
            ",".join((f'"{name}"', *(str(counts[split][name]) for split in SPLITS)))
            for name in data.classes
        ]
        path = str(Path(self.uri, _COUNTS))
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
        """Equal content in another place reuses what was computed from it."""
        return f"{data.fingerprint}-{data.root}"
