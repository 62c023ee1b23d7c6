"""The rows of a batch as an artifact: JSON lines and, beside them, what they are of."""

import os
import shutil
from pathlib import Path
from typing import ClassVar

from zenml.enums import ArtifactType
from zenml.materializers.base_materializer import BaseMaterializer
from zenml.metadata.metadata_types import MetadataType

from darkroom.base.files import atomic_path, workspace
from darkroom.batch.table import ABOUT_FILE, BatchAbout, BatchTable, part_of

_ROWS = "rows.jsonl"


class BatchTableMaterializer(BaseMaterializer):
    """Stores all rows in one file; loading fetches them into the workspace, unless they are there.

    Rows are copied, never held all at once.
    """

    ASSOCIATED_TYPES: ClassVar[tuple[type, ...]] = (BatchTable,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA

    def load(self, data_type: type[BatchTable]) -> BatchTable:
        """The table, in the folder of its batch."""
        with self.artifact_store.open(self._path(ABOUT_FILE), "r") as file:
            about = BatchAbout.model_validate_json(file.read())
        folder = workspace() / "batches" / about.identity
        if not (folder / ABOUT_FILE).is_file():
            self._fetch(folder, about=about)
        return BatchTable(folder, about)

    def save(self, data: BatchTable) -> None:
        """Write rows and what they are of."""
        with self.artifact_store.open(self._path(_ROWS), "w") as file:
            for row in data.rows():
                file.write(f"{row.model_dump_json()}\n")
        with self.artifact_store.open(self._path(ABOUT_FILE), "w") as file:
            file.write(data.about.model_dump_json())

    def extract_metadata(self, data: BatchTable) -> dict[str, MetadataType]:
        """Of which model."""
        about = data.about
        return {
            "model_version": about.model_version,
            "engine": about.engine or "not said",
            "classes": len(about.classes),
        }

    def _fetch(self, folder: Path, *, about: BatchAbout) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        with atomic_path(folder) as temporary:
            temporary.mkdir()
            with (
                self.artifact_store.open(self._path(_ROWS), "rb") as source,
                part_of(temporary, 0).open("wb") as target,
            ):
                shutil.copyfileobj(source, target)
            (temporary / ABOUT_FILE).write_text(about.model_dump_json(), encoding="utf-8")

    def _path(self, name: str) -> str:
        return os.path.join(self.uri, name)
