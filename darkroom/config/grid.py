"""A search space as a grid: every combination of its choices and whole numbers."""

from collections.abc import Sequence
from itertools import product
from typing import TypeAlias

from darkroom.config.tuning import Choices, FloatRange, IntRange, SearchSpace, TuningConfig
from darkroom.errors import UserError

Dimension: TypeAlias = FloatRange | IntRange | Choices


def dimensions(space: SearchSpace) -> dict[str, Dimension]:
    """What is searched, by the hyperparameter's name."""
    return {name: searched for name, searched in space if searched is not None}


def grid(space: SearchSpace) -> list[dict[str, int]]:
    """All combinations of a space's values; the last dimension changes fastest.

    Raises:
        UserError: a dimension is continuous.
    """
    values = {name: grid_values(name, searched=each) for name, each in dimensions(space).items()}
    return [dict(zip(values, chosen, strict=True)) for chosen in product(*values.values())]


def grid_values(name: str, *, searched: Dimension) -> Sequence[int]:
    """The values of one dimension.

    Raises:
        UserError: it is continuous.
    """
    if isinstance(searched, Choices):
        return searched.choices
    if isinstance(searched, IntRange):
        return range(searched.low, searched.high + 1)
    raise UserError(continuous_problem(name))


def continuous_problem(name: str) -> str:
    """What is wrong with a continuous dimension in a grid."""
    return (
        f"tuning.search_space.{name}: a grid needs choices or whole numbers; set it to null, or "
        "use the strategy 'tpe', 'random' or 'hyperband'"
    )


def trials_wanted(tuning: TuningConfig) -> int:
    """How many trials a search has: a grid as many as it has combinations."""
    return len(grid(tuning.search_space)) if tuning.strategy == "grid" else tuning.trials
