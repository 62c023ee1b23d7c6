"""Where bundles are kept: `<folder>/<version>[-<engine>]`, wherever they were trained."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from filelock import FileLock

from darkroom.errors import UserError
from darkroom.model.bundle import Bundle, BundleMetadata, read_bundle


def keep_bundle(packed: Path, *, folder: Path) -> Bundle:
    """Move a bundle to its place; another bundle that lies there, or a damaged one, is replaced.

    One that is the same stays: somebody may be reading it.

    Raises:
        UserError: it is not what was packed.
    """
    metadata = read_bundle(packed).metadata
    place = folder / metadata.place
    folder.mkdir(parents=True, exist_ok=True)
    with (
        FileLock(folder / ".lock"),
        TemporaryDirectory(dir=folder, prefix=".replaced-") as scratch,
    ):
        if holds_bundle(place, metadata=metadata):
            shutil.rmtree(packed)
        else:
            if place.exists():
                place.rename(Path(scratch, "old"))
            packed.rename(place)
    return read_bundle(place)


def holds_bundle(folder: Path, *, metadata: BundleMetadata) -> bool:
    """Whether a folder holds exactly that bundle, whole."""
    try:
        return read_bundle(folder).metadata == metadata
    except UserError:
        return False
