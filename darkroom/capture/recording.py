"""A recording that passes between components."""

import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from darkroom.errors import DarkroomError

MOST_BYTES = 16 * 2**30
"""Of a recording."""


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


def unpack_recording(archive: Path, *, folder: Path, within: str = "") -> bool:
    """Unpack a recording into a folder that it replaces; nothing is written outside of it.

    Args:
        archive: of `pack_recording`, or of a job's output.
        within: the folder of the archive in which the recording lies; the rest is left.

    Returns:
        Whether there was one.

    Raises:
        DarkroomError: it is larger than any recording.
        tarfile.TarError, EOFError, OSError: it is damaged, or no archive.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    prefix = f"{within}/" if within else ""
    with (
        TemporaryDirectory(dir=folder.parent, prefix=".unpacking-") as scratch,
        tarfile.open(archive) as tar,
    ):
        place = Path(scratch, "recording")
        size = 0
        for member in tar:
            name = member.name.removeprefix("./")
            if not (member.isreg() and name.startswith(prefix)):
                continue
            size += member.size
            if size > MOST_BYTES:
                raise DarkroomError(f"the recording in {archive.name} is larger than expected")
            member.name = name.removeprefix(prefix)
            tar.extract(member, place, filter="data")
        if not place.is_dir():
            return False
        shutil.rmtree(folder, ignore_errors=True)
        place.rename(folder)
    return True
