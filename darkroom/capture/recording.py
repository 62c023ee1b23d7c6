"""A recording that passes between components."""

import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory


@dataclass(frozen=True)
class Recording:
    """What was recorded of a training."""

    folder: Path | None
    """See darkroom.capture; None: nothing was recorded."""


def pack_recording(folder: Path, archive: Path) -> None:
    """Write a recording as a .tar.gz."""
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                tar.add(path, arcname=str(path.relative_to(folder)))


def unpack_recording(archive: Path, *, folder: Path) -> None:
    """Unpack an archive of `pack_recording`; nothing is written outside the folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (
        TemporaryDirectory(dir=folder.parent, prefix=".unpacking-") as scratch,
        tarfile.open(archive, "r:gz") as tar,
    ):
        place = Path(scratch, "recording")
        place.mkdir()
        for member in tar:
            if member.isreg():
                tar.extract(member, place, filter="data")
        shutil.rmtree(folder, ignore_errors=True)
        place.rename(folder)
