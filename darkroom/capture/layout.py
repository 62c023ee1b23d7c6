"""Where the parts of a recording lie."""

from dataclasses import dataclass
from pathlib import Path

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
