"""What a training comes to, wherever it ran. Imports no torch."""

from dataclasses import dataclass
from pathlib import Path

from darkroom.errors import DarkroomError
from darkroom.model.bundle import Bundle
from darkroom.training.history import EpochMetrics


class FailedTrainingError(DarkroomError):
    """A training failed; what was recorded until then may tell why."""

    def __init__(self, reason: str, *, recording: Path) -> None:
        super().__init__(reason)
        self.recording = recording


@dataclass(frozen=True)
class TrainedBundle:
    """A packed model and how it came to be."""

    bundle: Bundle
    history: list[EpochMetrics]
    best_epoch: int
    """From 1; the bundle holds its weights."""
    job: str | None = None
    """Name of the managed job that trained it."""
    recording: Path | None = None
    """Folder of the recording; None where nothing was recorded."""

    @property
    def metrics(self) -> dict[str, float]:
        """Of the validation split at the best epoch."""
        return self.bundle.metadata.metrics
