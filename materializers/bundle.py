"""A model bundle as an artifact: on this machine its files, elsewhere model.tar.gz and metadata.

A model can be hundreds of megabytes. Where artifacts lie on the disk that holds the workspace,
they are further names (hard links) of the workspace's files, and take no room of their own.
"""

import os
import shutil
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

from zenml.enums import ArtifactType, VisualizationType
from zenml.materializers.base_materializer import BaseMaterializer
from zenml.metadata.metadata_types import MetadataType

from darkroom.backends.contract import holds_bundle, keep_bundle
from darkroom.base.files import link_or_copy, workspace
from darkroom.models.bundle import (
    ARCHIVE_FILE,
    FILES,
    METADATA_FILE,
    Bundle,
    BundleMetadata,
    pack,
    read_bundle,
    unpack,
)


class BundleMaterializer(BaseMaterializer):
    """Stores a bundle; loading brings it once into the workspace."""

    ASSOCIATED_TYPES: ClassVar[tuple[type, ...]] = (Bundle,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.MODEL

    def load(self, data_type: type[Bundle]) -> Bundle:
        """Bring the bundle into the workspace, unless it is there and whole, and check it."""
        with self.artifact_store.open(self._path(METADATA_FILE), "r") as file:
            metadata = BundleMetadata.model_validate_json(file.read())
        folder = bundle_folder(metadata)
        if not holds_bundle(folder, metadata=metadata):
            self._fetch(folder)
        return read_bundle(folder)

    def save(self, data: Bundle) -> None:
        """Write the files; to a store elsewhere, the archive and the metadata."""
        if self.artifact_store.config.is_local:
            for name in FILES:
                link_or_copy(data.folder / name, Path(self._path(name)))
            return
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
        """Equal metadata is the same model: it holds the digests of the other files."""
        return sha256(data.metadata.model_dump_json().encode()).hexdigest()

    def _fetch(self, folder: Path) -> None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.parent, prefix=".fetched-") as scratch:
            fetched = Path(scratch, "bundle")
            fetched.mkdir()
            if self.artifact_store.exists(self._path(ARCHIVE_FILE)):
                archive = Path(scratch, ARCHIVE_FILE)
                with (
                    self.artifact_store.open(self._path(ARCHIVE_FILE), "rb") as source,
                    archive.open("wb") as target,
                ):
                    shutil.copyfileobj(source, target)
                unpack(archive, fetched)
            else:
                for name in FILES:
                    link_or_copy(Path(self._path(name)), fetched / name)
            keep_bundle(fetched, folder=folder.parent)

    def _path(self, name: str) -> str:
        return os.path.join(self.uri, name)


def bundle_folder(metadata: BundleMetadata) -> Path:
    """Where the workspace keeps a bundle, by its weights and the engine that was chosen."""
    return workspace() / "bundles" / metadata.place
