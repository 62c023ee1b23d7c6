"""What a training comes to, wherever it ran. Imports no torch."""

from dataclasses import dataclass

from darkroom.model.bundle import Bundle
from darkroom.training.history import EpochMetrics


@dataclass(frozen=True)
class TrainedBundle:
    """A packed model and how it came to be."""

    bundle: Bundle
    history: list[EpochMetrics]
    best_epoch: int
    """From 1; the bundle holds its weights."""
    job: str | None = None
    """Name of the managed job that trained it."""

    @property
    def metrics(self) -> dict[str, float]:
        """Of the validation split at the best epoch."""
        return self.bundle.metadata.metrics
