"""What the epochs of a training measured, and what follows from it."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Self, get_args

from pydantic import BaseModel, ConfigDict

from darkroom.base.files import write_text
from darkroom.config.sections import Metric, is_better

_VALIDATION = "validation_"
LOGGED = (
    "learning_rate",
    "train_loss",
    "train_accuracy",
    *(f"{_VALIDATION}{metric}" for metric in get_args(Metric)),
    "images_per_second",
    "seconds",
)
"""Names in an epoch's log line, beside its number."""
_EPOCH, _KEPT = "epoch", "best_epoch"
_DIGITS_LOGGED, _DIGITS_SHOWN = 10, 4


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
        return f"{_EPOCH}={self.epoch} {_pairs(self._by_name(), digits=_DIGITS_LOGGED)}"

    @classmethod
    def from_log_line(cls, line: str) -> Self | None:
        """The epoch that `log_line` wrote, to ten digits; None: some other line."""
        if not line.startswith(f"{_EPOCH}="):
            return None
        try:
            values = _parsed(line)
            return cls(
                epoch=int(values.pop(_EPOCH)),
                validation={
                    name.removeprefix(_VALIDATION): values.pop(name)
                    for name in list(values)
                    if name.startswith(_VALIDATION)
                },
                **values,
            )
        except ValueError:  # cut off, or of another program
            return None

    def headline(self, *, epochs: int, objective: Metric) -> str:
        """The few that a person watches, in the same form."""
        values = self._by_name()
        shown = ["train_loss", "validation_log_loss", "validation_accuracy"]
        names = dict.fromkeys([*shown, f"validation_{objective}", "images_per_second"])
        pairs = _pairs({name: values[name] for name in names}, digits=_DIGITS_SHOWN)
        return f"{_EPOCH}={self.epoch}/{epochs} {pairs}"

    def kept_line(self) -> str:
        """That this is the epoch whose weights were kept, and its validation metrics again.

        Tuning services take the last value that a log holds of a metric; so that is the
        model's, not that of the last epoch.
        """
        return f"{_KEPT}={self.epoch} {_pairs(self._validation(), digits=_DIGITS_LOGGED)}"

    def _by_name(self) -> dict[str, float]:
        return {
            "learning_rate": self.learning_rate,
            "train_loss": self.train_loss,
            "train_accuracy": self.train_accuracy,
            **self._validation(),
            "images_per_second": self.images_per_second,
            "seconds": self.seconds,
        }

    def _validation(self) -> dict[str, float]:
        return {f"{_VALIDATION}{name}": value for name, value in self.validation.items()}


def best_epoch(history: Sequence[EpochMetrics], *, objective: Metric) -> int:
    """The number of the epoch with the best validation objective; the first of equals."""
    best = history[0]
    for epoch in history[1:]:
        if is_better(epoch.validation[objective], best.validation[objective], metric=objective):
            best = epoch
    return best.epoch


def is_exhausted(
    history: Sequence[EpochMetrics], *, objective: Metric, patience: int, warmup_epochs: float = 0
) -> bool:
    """Whether the last `patience` epochs brought no better objective; 0: never.

    Args:
        warmup_epochs: those of the warm-up do not count: it cannot be expected of them.
    """
    if not (history and patience):
        return False
    since = max(best_epoch(history, objective=objective), math.ceil(warmup_epochs))
    return history[-1].epoch - since >= patience


def write_history(path: Path, history: Sequence[EpochMetrics], *, objective: Metric) -> None:
    """Write `{"best_epoch": …, "objective": …, "epochs": […]}`, atomically."""
    content = {
        "objective": objective,
        "best_epoch": best_epoch(history, objective=objective),
        "epochs": [epoch.model_dump() for epoch in history],
    }
    write_text(path, json.dumps(content, indent=1) + "\n")


def read_history(text: str) -> list[EpochMetrics]:
    """The epochs that `write_history` wrote."""
    return [EpochMetrics.model_validate(epoch) for epoch in json.loads(text)["epochs"]]


def kept_values(line: str) -> dict[str, float] | None:
    """Metrics of the validation split that `kept_line` wrote; None: some other line."""
    if not line.startswith(f"{_KEPT}="):
        return None
    try:
        values = _parsed(line)
    except ValueError:
        return None
    return {name.removeprefix(_VALIDATION): values[name] for name in values if name != _KEPT}


def _pairs(values: dict[str, float], *, digits: int) -> str:
    return " ".join(f"{name}={value:.{digits}g}" for name, value in values.items())


def _parsed(line: str) -> dict[str, float]:
    """The pairs of a line.

    Raises:
        ValueError: it is no line of such pairs.
    """
    return {name: float(value) for name, value in (pair.split("=") for pair in line.split())}
