"""What a configuration may say of the search for hyperparameters."""

from typing import Annotated, Literal, Self, TypeAlias, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    PositiveInt,
    Tag,
    model_validator,
)

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


_Number = TypeVar("_Number", int, float)


def _each_once(values: tuple[_Number, ...]) -> tuple[_Number, ...]:
    twice = dict.fromkeys(value for value in values if values.count(value) > 1)
    if twice:
        raise ValueError(f"has {', '.join(map(repr, twice))} more than once; give each value once")
    return values


def _as_tuple(value: object) -> object:
    """What JSON has as a list: pydantic lets that pass alone where it need not tell kinds apart."""
    return tuple(value) if isinstance(value, list) else value


def _not_a_range_as_well(value: object) -> object:
    """Refuse choices beside a range: which of them was meant, nobody can tell."""
    if isinstance(value, dict) and (
        both := [key for key in FloatRange.model_fields if key in value]
    ):
        raise ValueError(
            f"has choices and {', '.join(both)}; give either choices, or low and high (and log)"
        )
    return value


_Listed: TypeAlias = Annotated[
    tuple[_Number, ...],
    Field(min_length=1),
    AfterValidator(_each_once),
    BeforeValidator(_as_tuple),
]


class FloatChoices(Section):
    """Numbers to choose from."""

    choices: _Listed[float]
    """Such as [1e-4, 1e-3, 1e-2]."""

    _alone = model_validator(mode="before")(_not_a_range_as_well)


class Choices(FloatChoices):
    """Whole numbers to choose from."""

    choices: _Listed[PositiveInt]
    """Such as [16, 32, 64]."""

    @property
    def low(self) -> int:
        """The smallest choice."""
        return min(self.choices)

    @property
    def high(self) -> int:
        """The largest choice."""
        return max(self.choices)


AS_RANGE, AS_CHOICES = "<range>", "<choices>"
"""How a dimension is given; pydantic puts it into the places of errors."""


def _kind(value: object) -> str:
    is_choices = isinstance(value, FloatChoices) or (isinstance(value, dict) and "choices" in value)
    return AS_CHOICES if is_choices else AS_RANGE


FloatDimension: TypeAlias = Annotated[
    Annotated[FloatRange, Tag(AS_RANGE)] | Annotated[FloatChoices, Tag(AS_CHOICES)],
    Discriminator(_kind),
]
IntDimension: TypeAlias = Annotated[
    Annotated[IntRange, Tag(AS_RANGE)] | Annotated[Choices, Tag(AS_CHOICES)],
    Discriminator(_kind),
]


class SearchSpace(Section):
    """What the tuner varies: a range, or choices; null leaves the value of `training` in place."""

    learning_rate: FloatDimension | None = FloatRange(low=1e-4, high=1e-2, log=True)
    batch_size: Choices | None = Choices(choices=(16, 32, 64))
    weight_decay: FloatDimension | None = FloatRange(low=1e-4, high=1e-1, log=True)
    epochs: IntDimension | None = IntRange(low=3, high=10)


class TuningConfig(Section):
    """The search for hyperparameters."""

    enabled: bool = True
    """false: train with the values of `training`."""
    trials: PositiveInt = 4
    """Trials, pruned ones included; a grid has as many as it has combinations."""
    strategy: Literal["tpe", "random", "grid", "hyperband"] = "tpe"
    """How the next trial is chosen; SageMaker's Bayesian search stands for tpe. grid tries every
    combination of choices and whole numbers, and takes no range of other numbers."""
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
    """Ranges or choices by hyperparameter."""

    @property
    def resolved_direction(self) -> Direction:
        """The direction, by the objective's nature where none is given."""
        return self.direction or natural_direction(self.objective)
