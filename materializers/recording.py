"""A recording as an artifact: recording.tar.gz."""

import os
import shutil
from hashlib import sha256
from pathlib import Path
from typing import ClassVar

from zenml.enums import ArtifactType
from zenml.materializers.base_materializer import BaseMaterializer
from zenml.metadata.metadata_types import MetadataType

from darkroom.base.files import atomic_path, link_or_copy, workspace
from darkroom.data.hashes import HashIndex, content_digest, keep_folder, record_content
from darkroom.telemetry.recording import Recording, pack_recording, unpack_recording

_ARCHIVE = "recording.tar.gz"


class RecordingMaterializer(BaseMaterializer):
    """Stores an archive, or nothing where nothing was recorded."""

    ASSOCIATED_TYPES: ClassVar[tuple[type, ...]] = (Recording,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA

    def load(self, data_type: type[Recording]) -> Recording:
        """Unpack into the workspace, unless it is there and whole."""
        if not self.artifact_store.exists(self._path):
            return Recording(None)
        keep_folder(self._place, store=_hashes(), make=self._unpack)
        return Recording(self._place)

    def save(self, data: Recording) -> None:
        """Write the archive."""
        if data.folder is None:
            return
        with self.get_temporary_directory(delete_at_exit=True) as scratch:
            archive = Path(scratch, _ARCHIVE)
            pack_recording(data.folder, archive)
            with (
                archive.open("rb") as source,
                self.artifact_store.open(self._path, "wb") as target,
            ):
                shutil.copyfileobj(source, target)
        # Where its later readers look for it: they need not unpack what lies here.
        with atomic_path(self._place, durable=False) as temporary:
            shutil.copytree(data.folder, temporary, copy_function=link_or_copy)
        with HashIndex.in_store(_hashes()) as index:
            record_content(self._place, index=index)

    def extract_metadata(self, data: Recording) -> dict[str, MetadataType]:
        """How much there is."""
        if data.folder is None:
            return {"recorded": False}
        files = [path for path in data.folder.rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
        return {"recorded": True, "files": len(files), "megabytes": round(size / 1e6, 1)}

    def compute_content_hash(self, data: Recording) -> str:
        """Equal files by equal names are the same recording."""
        if data.folder is None:
            return "nothing"
        with HashIndex.in_store(_hashes()) as index:
            return content_digest(data.folder, index=index)

    def _unpack(self) -> None:
        with self.get_temporary_directory(delete_at_exit=True) as scratch:
            archive = Path(scratch, _ARCHIVE)
            with (
                self.artifact_store.open(self._path, "rb") as source,
                archive.open("wb") as target,
            ):
                shutil.copyfileobj(source, target)
            unpack_recording(archive, folder=self._place)

    @property
    def _place(self) -> Path:
        """Of the unpacked recording in the workspace."""
        return workspace() / "recordings" / sha256(self.uri.encode()).hexdigest()[:16]

    @property
    def _path(self) -> str:
        return os.path.join(self.uri, _ARCHIVE)


def _hashes() -> Path:
    """Where hashes of files are remembered."""
    return workspace() / "data"
