"""What a configuration may say of the search for hyperparameters."""

import math
from collections.abc import Sequence
from itertools import product
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

from darkroom.base.errors import UserError
from darkroom.config.sections import Direction, Metric, Section, natural_direction

# --- tuning ---


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


# --- grid ---
# A search space as a grid: every combination of its choices and whole numbers.

Dimension: TypeAlias = FloatRange | IntRange | FloatChoices
Number: TypeAlias = int | float


def dimensions(space: SearchSpace) -> dict[str, Dimension]:
    """What is searched, by the hyperparameter's name."""
    return {name: searched for name, searched in space if searched is not None}


def grid(space: SearchSpace) -> list[dict[str, Number]]:
    """All combinations of a space's values; the last dimension changes fastest.

    Raises:
        UserError: a dimension is a range of fractions.
    """
    values = {name: grid_values(name, searched=each) for name, each in dimensions(space).items()}
    return [dict(zip(values, chosen, strict=True)) for chosen in product(*values.values())]


def grid_values(name: str, *, searched: Dimension) -> Sequence[Number]:
    """The values of one dimension.

    Raises:
        UserError: it is a range of fractions.
    """
    if isinstance(searched, FloatChoices):
        return searched.choices
    if isinstance(searched, IntRange):
        return range(searched.low, searched.high + 1)
    raise UserError(continuous_problem(name, searched=searched))


def continuous_problem(name: str, *, searched: FloatRange) -> str:
    """What is wrong with a range of fractions in a grid."""
    key = f"tuning.search_space.{name}"
    return (
        f"{key}: from {searched.low!r} to {searched.high!r} there are endlessly many values, and a "
        f"grid tries all; give those to try, such as --set '{key}.choices=[{searched.low!r}, "
        f"{searched.high!r}]', set it to null, or use the strategy 'tpe', 'random' or 'hyperband'"
    )


def counts(space: SearchSpace) -> dict[str, int]:
    """How many values each dimension has; their product is the number of combinations.

    Raises:
        UserError: a dimension is a range of fractions.
    """
    return {name: _count(name, searched=each) for name, each in dimensions(space).items()}


def _count(name: str, *, searched: Dimension) -> int:
    if isinstance(searched, IntRange):  # len() of a range that is too long is an error
        return searched.high - searched.low + 1
    return len(grid_values(name, searched=searched))


def trials_wanted(tuning: TuningConfig) -> int:
    """How many trials a search has: a grid as many as it has combinations."""
    is_grid = tuning.strategy == "grid"
    return math.prod(counts(tuning.search_space).values()) if is_grid else tuning.trials
