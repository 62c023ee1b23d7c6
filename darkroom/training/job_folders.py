"""Where the parts of a training job lie, by SageMaker's contract; see program.py."""

from dataclasses import dataclass
from pathlib import Path

from darkroom.capture.layout import RECORDING_FOLDER

WEIGHTS_CHANNEL = "weights"
"""Holds the initial weights where the hyperparameter `weights` is an S3 URI."""


@dataclass(frozen=True)
class Job:
    """The folders of a training job."""

    base: Path

    @property
    def config(self) -> Path:
        """What the job is asked to do."""
        return self.base / "input" / "config"

    @property
    def data(self) -> Path:
        """The channels."""
        return self.base / "input" / "data"

    @property
    def checkpoints(self) -> Path:
        """What outlives a stopped job."""
        return self.base / "checkpoints"

    @property
    def cache(self) -> Path:
        """Decoded images and hashes; may be lost."""
        return self.base / "cache"

    @property
    def model(self) -> Path:
        """The bundle's files."""
        return self.base / "model"

    @property
    def history(self) -> Path:
        """Metrics by epoch."""
        return self.base / "output" / "history.json"

    @property
    def kept_history(self) -> Path:
        """The same, where SageMaker looks for what is to outlive the job."""
        return self.base / "output" / "data" / "history.json"

    @property
    def recording(self) -> Path:
        """What is recorded; with the checkpoints, so that a training that goes on finds it."""
        return self.checkpoints / RECORDING_FOLDER

    @property
    def kept_recording(self) -> Path:
        """A copy, where SageMaker looks for what is to outlive the job."""
        return self.base / "output" / "data" / RECORDING_FOLDER

    @property
    def failure(self) -> Path:
        """Why the job failed; SageMaker shows its first 1,024 characters."""
        return self.base / "output" / "failure"
