"""Where the bundles of trainings are kept: `<folder>/<version>`, wherever they were trained."""

from pathlib import Path
from tempfile import TemporaryDirectory

from darkroom.model.bundle import Bundle, read_bundle


def keep_bundle(packed: Path, *, folder: Path) -> Bundle:
    """Move a bundle to its place by version; a bundle that lies there is replaced.

    Raises:
        UserError: it is not what was packed.
    """
    place = folder / read_bundle(packed).metadata.version
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".replaced-") as scratch:
        if place.exists():
            place.rename(Path(scratch, "old"))
        packed.rename(place)
    return read_bundle(place)
