"""What the epochs of a training measured, and what follows from it."""

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from darkroom.config import Metric, is_better
from darkroom.files import write_text


class EpochMetrics(BaseModel):
    """One epoch."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epoch: int
    """From 1."""
    learning_rate: float
    """Of the epoch's last step."""
    train_loss: float
    """Mean over the epoch's images, augmented and smoothed as in training, in nats."""
    train_accuracy: float
    validation: dict[str, float]
    """The headline metrics of the validation split, computed in float32."""
    images_per_second: float
    """Training images over the time spent on them, decoding included, validation not."""
    seconds: float
    """The whole epoch, validation included."""

    def log_line(self) -> str:
        """Every metric as `name=value`, for programs that read logs by regular expression."""
        return _pairs({"epoch": self.epoch, **self._by_name()})

    def headline(self, *, epochs: int, objective: Metric) -> str:
        """The few that a person watches, in the same form."""
        values = self._by_name()
        shown = ["train_loss", "validation_log_loss", "validation_accuracy"]
        names = dict.fromkeys([*shown, f"validation_{objective}", "images_per_second"])
        return f"epoch={self.epoch}/{epochs} {_pairs({name: values[name] for name in names})}"

    def _by_name(self) -> dict[str, float]:
        return {
            "learning_rate": self.learning_rate,
            "train_loss": self.train_loss,
            "train_accuracy": self.train_accuracy,
            **{f"validation_{name}": value for name, value in self.validation.items()},
            "images_per_second": self.images_per_second,
        }


def best_epoch(history: Sequence[EpochMetrics], *, objective: Metric) -> int:
    """The number of the epoch with the best validation objective; the first of equals."""
    best = history[0]
    for epoch in history[1:]:
        if is_better(epoch.validation[objective], best.validation[objective], metric=objective):
            best = epoch
    return best.epoch


def is_exhausted(history: Sequence[EpochMetrics], *, objective: Metric, patience: int) -> bool:
    """Whether the last `patience` epochs brought no better objective; 0: never."""
    if not (history and patience):
        return False
    return history[-1].epoch - best_epoch(history, objective=objective) >= patience


def write_history(path: Path, history: Sequence[EpochMetrics], *, objective: Metric) -> None:
    """Write `{"best_epoch": …, "objective": …, "epochs": […]}`, atomically."""
    content = {
        "objective": objective,
        "best_epoch": best_epoch(history, objective=objective),
        "epochs": [epoch.model_dump() for epoch in history],
    }
    write_text(path, json.dumps(content, indent=1) + "\n")


def _pairs(values: dict[str, float]) -> str:
    return " ".join(f"{name}={value:.4g}" for name, value in values.items())
