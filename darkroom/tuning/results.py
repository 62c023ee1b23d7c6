"""What a search comes to: its trials, and the best values. Imports neither torch nor Optuna."""

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from darkroom.config.sections import Direction, Metric
from darkroom.config.tuning import TuningConfig

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

    @property
    def value(self) -> float:
        """The objective; not a number where there is none."""
        return math.nan if self.objective is None else self.objective

    def in_words(self, objective: str) -> str:
        """One line for people."""
        values = ", ".join(f"{name} {_shown(value)}" for name, value in self.values.items())
        outcome = self.state if self.objective is None else f"{objective} {self.objective:.4f}"
        pruned = ", pruned" if self.state == "pruned" else ""
        return f"trial {self.number}: {outcome}{pruned} ({values})"


def _shown(value: Value) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3g}"


class TuningResult(BaseModel):
    """The best values, and all trials."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    objective: Metric
    direction: Direction
    best: dict[str, Value]
    best_value: float
    trials: list[Trial]


def best_trial(trials: Sequence[Trial], *, direction: Direction) -> Trial | None:
    """The best of those that ran to their end, the first of equals; None: there is none."""
    complete = [trial for trial in trials if trial.state == "complete"]
    pick = max if direction == "maximize" else min
    return pick(complete, key=lambda trial: trial.value, default=None)


def tuning_result(trials: Sequence[Trial], *, best: Trial, tuning: TuningConfig) -> TuningResult:
    """What a search comes to whose best trial is known."""
    return TuningResult(
        objective=tuning.objective,
        direction=tuning.resolved_direction,
        best=best.values,
        best_value=best.value,
        trials=list(trials),
    )
