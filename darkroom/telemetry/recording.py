"""A recording of a training as files: where each lies, its lines, and the phases of a step."""

import json
import os
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, get_args

from darkroom.base.errors import DarkroomError

# --- phases ---
# The phases of a training step, and of what lies between steps.

Phase = Literal[
    "data_wait",
    "transfer",
    "forward",
    "backward",
    "optimiser",
    "recording",
    "evaluation",
    "checkpoint",
]
"""`data_wait`: until the batch's pixels are there; `transfer`: to the device and to floats;
`forward`: network and loss; `recording`: what recording and judging themselves cost."""

PHASES: tuple[Phase, ...] = get_args(Phase)
STEP_PHASES: tuple[Phase, ...] = PHASES[:6]
BETWEEN_STEPS: tuple[Phase, ...] = PHASES[6:]


# --- layout ---
# Where the parts of a recording lie.

RECORDING_FOLDER = "recording"
"""Beside a training's checkpoints, and in what is kept of a job."""


@dataclass(frozen=True)
class RecordingFolder:
    """Paths below a recording's folder."""

    root: Path

    @property
    def facts(self) -> Path:
        return self.root / "recording.json"

    @property
    def steps(self) -> Path:
        return self.root / "steps.jsonl"

    @property
    def evaluations(self) -> Path:
        return self.root / "evaluations.jsonl"

    @property
    def epochs(self) -> Path:
        return self.root / "epochs.jsonl"

    @property
    def margins(self) -> Path:
        return self.root / "margins.npz"

    @property
    def tensors(self) -> Path:
        return self.root / "tensors"

    @property
    def system(self) -> Path:
        return self.root / "system.jsonl"

    @property
    def profile(self) -> Path:
        return self.root / "profile"

    @property
    def ended_by(self) -> Path:
        """The finding that ended the training early; not there where none did."""
        return self.root / "ended_by.json"

    @property
    def told(self) -> Path:
        """What rules found while the training ran, a line each."""
        return self.root / "told.jsonl"

    @property
    def profile_summary(self) -> Path:
        """Use of the machine, and time by phase and epoch."""
        return self.root / "profile_summary.json"

    @property
    def findings(self) -> Path:
        return self.root / "findings.json"


# --- lines ---
# Files of JSON lines that grow while a training runs, and survive its being killed.


class LineWriter:
    """Appends JSON objects, each on the disk as soon as it is written."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        is_torn = _is_torn(path)
        self._file = path.open("a", encoding="utf-8", buffering=1)
        if is_torn:
            self._file.write("\n")

    def write(self, values: Mapping[str, object]) -> None:
        """Append one object; NaN and infinities are written as JavaScript would."""
        self._file.write(json.dumps(values, separators=(",", ":")) + "\n")

    def close(self) -> None:
        self._file.close()


def _is_torn(path: Path) -> bool:
    """Whether the last line was left unfinished."""
    if not (path.exists() and path.stat().st_size):
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"


def read_lines(path: Path) -> Iterator[dict[str, object]]:
    """The objects of a file; a line that a killed training left unfinished is left out."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                values = json.loads(line)
            except ValueError:
                continue
            if isinstance(values, dict):
                yield values


# --- recording ---

MAX_BYTES = 16 * 2**30
"""Of a recording."""


@dataclass(frozen=True)
class Recording:
    """What was recorded of a training."""

    folder: Path | None
    """See darkroom.debugging.recording; None: nothing was recorded."""


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
            if size > MAX_BYTES:
                raise DarkroomError(f"the recording in {archive.name} is larger than expected")
            member.name = name.removeprefix(prefix)
            tar.extract(member, place, filter="data")
        if not place.is_dir():
            return False
        shutil.rmtree(folder, ignore_errors=True)
        place.rename(folder)
    return True
