"""What a configuration may say of the search for hyperparameters."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from darkroom.config.metrics import Direction, Metric, natural_direction
from darkroom.config.sections import Section


class FloatRange(Section):
    """A continuous search range."""

    low: float
    high: float
    log: bool = False
    """Search the logarithm evenly."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low ({self.low:g}) must be less than high ({self.high:g})")
        if self.log and self.low <= 0:
            raise ValueError(f"low ({self.low:g}) must be positive where log is true")
        return self


class IntRange(Section):
    """An integer search range, both ends included."""

    low: int
    high: int
    log: bool = False
    """Search the logarithm evenly."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not 1 <= self.low <= self.high:
            raise ValueError(f"need 1 <= low <= high, not low {self.low}, high {self.high}")
        return self


class Choices(Section):
    """A categorical search dimension."""

    choices: Annotated[tuple[int, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _positive(self) -> Self:
        if min(self.choices) < 1:
            raise ValueError("choices must be positive")
        return self


class SearchSpace(Section):
    """What the tuner varies; null leaves the value of `training` in place."""

    learning_rate: FloatRange | None = FloatRange(low=1e-4, high=1e-2, log=True)
    batch_size: Choices | None = Choices(choices=(16, 32, 64))
    weight_decay: FloatRange | None = FloatRange(low=1e-4, high=1e-1, log=True)
    epochs: IntRange | None = IntRange(low=3, high=10)


class TuningConfig(Section):
    """The search for hyperparameters."""

    enabled: bool = True
    """false: train with the values of `training`."""
    trials: PositiveInt = 4
    """Trials, pruned ones included."""
    strategy: Literal["tpe", "random", "grid", "hyperband"] = "tpe"
    """How the next trial is chosen; SageMaker's Bayesian search stands for tpe."""
    objective: Metric = "f1_macro"
    """Validation metric that is optimised."""
    direction: Direction | None = None
    """null: minimize for log_loss and calibration_error, else maximize."""
    pruning: Literal["median", "none"] = "median"
    """Stop a trial that is worse than the median of the earlier ones at the same epoch."""
    pruning_warmup_trials: Annotated[int, Field(ge=1)] = 2
    """Trials that always run to their end, before the first may be pruned."""
    timeout_seconds: Annotated[float, Field(ge=0)] = 0
    """No new trial after so long; 0: no limit."""
    target_value: float | None = None
    """No new trial once the objective is as good as this."""
    patience_trials: Annotated[int, Field(ge=0)] = 0
    """No new trial after so many without a better objective (SageMaker: at least 3); 0: never."""
    search_space: SearchSpace = SearchSpace()
    """Ranges by hyperparameter."""

    @property
    def resolved_direction(self) -> Direction:
        """The direction, by the objective's nature where none is given."""
        return self.direction or natural_direction(self.objective)
