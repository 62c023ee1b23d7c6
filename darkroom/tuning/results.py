"""What a search comes to: its trials, and the best values. Imports neither torch nor Optuna."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from darkroom.config import Direction, Metric

Value = int | float

State = Literal["complete", "pruned", "failed"]


class Trial(BaseModel):
    """One set of values and what came of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: int
    """From 0, in the order of the search."""
    values: dict[str, Value]
    state: State
    objective: float | None
    """At the epoch that was kept; of a pruned trial, at its last; None: failed."""
    epochs: int
    """That were trained."""
    seconds: float
    error: str | None = None
    """Why it failed."""


class TuningResult(BaseModel):
    """The best values, and all trials."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    objective: Metric
    direction: Direction
    best: dict[str, Value]
    best_value: float
    trials: list[Trial]
