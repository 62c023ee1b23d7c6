"""A model bundle as an artifact: model.tar.gz and, beside it, its metadata."""

import os
import shutil
from pathlib import Path
from typing import ClassVar

from zenml.enums import ArtifactType, VisualizationType
from zenml.materializers.base_materializer import BaseMaterializer
from zenml.metadata.metadata_types import MetadataType

from darkroom.files import atomic_path, workspace
from darkroom.model.bundle import (
    ARCHIVE_FILE,
    METADATA_FILE,
    Bundle,
    BundleMetadata,
    pack,
    read_bundle,
    unpack,
)


class BundleMaterializer(BaseMaterializer):
    """Stores the archive; loading unpacks it once into the workspace."""

    ASSOCIATED_TYPES: ClassVar[tuple[type, ...]] = (Bundle,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.MODEL

    def load(self, data_type: type[Bundle]) -> Bundle:
        """Unpack the bundle into the workspace, unless it is there, and check it."""
        with self.artifact_store.open(self._path(METADATA_FILE), "r") as file:
            metadata = BundleMetadata.model_validate_json(file.read())
        folder = bundle_folder(metadata)
        if not folder.is_dir():
            self._fetch(folder)
        return read_bundle(folder)

    def save(self, data: Bundle) -> None:
        """Write the archive and the metadata."""
        with self.get_temporary_directory(delete_at_exit=True) as scratch:
            archive = Path(scratch, ARCHIVE_FILE)
            pack(data.folder, archive)
            with (
                archive.open("rb") as source,
                self.artifact_store.open(self._path(ARCHIVE_FILE), "wb") as target,
            ):
                shutil.copyfileobj(source, target)
        with self.artifact_store.open(self._path(METADATA_FILE), "w") as file:
            file.write(data.metadata.model_dump_json(indent=1))

    def save_visualizations(self, data: Bundle) -> dict[str, VisualizationType]:
        """The metadata."""
        return {self._path(METADATA_FILE): VisualizationType.JSON}

    def extract_metadata(self, data: Bundle) -> dict[str, MetadataType]:
        """What a person compares models by."""
        metadata = data.metadata
        return {
            "architecture": metadata.architecture,
            "classes": len(metadata.classes),
            "version": metadata.version,
            "data_fingerprint": metadata.data_fingerprint,
            "hyperparameters": dict(metadata.hyperparameters),
            "validation_metrics": dict(metadata.metrics),
        }

    def compute_content_hash(self, data: Bundle) -> str:
        """Equal files for the same engine are the same model."""
        digests = [digest for _, digest in sorted(data.metadata.files.items())]
        return "-".join([*digests, data.metadata.engine])

    def _fetch(self, folder: Path) -> None:
        with self.get_temporary_directory(delete_at_exit=True) as scratch:
            archive = Path(scratch, ARCHIVE_FILE)
            with (
                self.artifact_store.open(self._path(ARCHIVE_FILE), "rb") as source,
                archive.open("wb") as target,
            ):
                shutil.copyfileobj(source, target)
            with atomic_path(folder) as temporary:
                temporary.mkdir()
                unpack(archive, temporary)

    def _path(self, name: str) -> str:
        return os.path.join(self.uri, name)


def bundle_folder(metadata: BundleMetadata) -> Path:
    """Where the workspace keeps a bundle, by its weights and the engine that was chosen."""
    return workspace() / "bundles" / metadata.place
