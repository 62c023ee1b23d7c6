"""The headline metrics by name, and which way each of them is better."""

from typing import Literal

Metric = Literal[
    "accuracy",
    "balanced_accuracy",
    "f1_macro",
    "precision_macro",
    "recall_macro",
    "log_loss",
    "calibration_error",
]
"""The headline metrics, all of them logged for each split and usable as objectives."""

Direction = Literal["maximize", "minimize"]


def natural_direction(metric: Metric) -> Direction:
    """Whether more or less of a metric is better."""
    return "minimize" if metric in ("log_loss", "calibration_error") else "maximize"


def is_better(value: float, than: float, *, metric: Metric) -> bool:
    """Whether `value` beats `than`, by the metric's natural direction."""
    return value < than if natural_direction(metric) == "minimize" else value > than
