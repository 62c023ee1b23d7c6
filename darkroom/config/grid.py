"""A search space as a grid: every combination of its choices and whole numbers."""

import math
from collections.abc import Sequence
from itertools import product
from typing import TypeAlias

from darkroom.config.tuning import (
    FloatChoices,
    FloatRange,
    IntRange,
    SearchSpace,
    TuningConfig,
)
from darkroom.errors import UserError

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
