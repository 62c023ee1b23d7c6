"""The search space of a tuning job: SageMaker's parameter ranges, and the strings they become."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Protocol, TypeVar

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

Values = dict[str, str]
"""Hyperparameters as a container reads them: every value a string."""

Drawn = float | int | str
"""One of them as the search holds it: a number, or a position on a transformed scale."""

Point = dict[str, Drawn]


_Number = TypeVar("_Number", int, float)


class Dimension(Protocol):
    """One hyperparameter that is searched."""

    @property
    def distribution(self) -> BaseDistribution:
        """Where the search draws from."""

    def outward(self, value: Drawn) -> str:
        """The string that a container is given for a drawn value."""

    def inward(self, text: str) -> Drawn:
        """The drawn value of a string; ValueError where it is none of this dimension's."""


@dataclass(frozen=True)
class _Integer:
    distribution: IntDistribution

    def outward(self, value: Drawn) -> str:
        return str(int(value))

    def inward(self, text: str) -> int:
        return _within(int(text), distribution=self.distribution)


@dataclass(frozen=True)
class _Continuous:
    distribution: FloatDistribution

    def outward(self, value: Drawn) -> str:
        return repr(float(value))

    def inward(self, text: str) -> float:
        return _within(float(text), distribution=self.distribution)


@dataclass(frozen=True)
class _ReverseLogarithmic:
    """Drawn as 1 - value on a logarithmic scale, for values near 1 (momentum, say)."""

    distribution: FloatDistribution

    def outward(self, value: Drawn) -> str:
        return repr(1 - float(value))

    def inward(self, text: str) -> float:
        return _within(1 - float(text), distribution=self.distribution)


@dataclass(frozen=True)
class _Categorical:
    distribution: CategoricalDistribution

    def outward(self, value: Drawn) -> str:
        return str(value)

    def inward(self, text: str) -> str:
        if text not in self.distribution.choices:
            raise ValueError(f"{text!r} is none of {self.distribution.choices}")
        return text


class Space:
    """All hyperparameters of one tuning job that are searched."""

    def __init__(self, dimensions: Mapping[str, Dimension]) -> None:
        self._dimensions = dict(dimensions)

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """By name, as Optuna takes them."""
        return {name: each.distribution for name, each in self._dimensions.items()}

    def outward(self, drawn: Point) -> Values:
        """What the container of a drawn point is given."""
        return {name: self._dimensions[name].outward(value) for name, value in drawn.items()}

    def inward(self, values: Mapping[str, str]) -> Point:
        """The point that a job's strings stand for.

        Raises ValueError where one lies outside its range, KeyError where one is missing.
        """
        return {name: each.inward(values[name]) for name, each in self._dimensions.items()}

    def grid(self) -> list[Values]:
        """Every combination, in the order of the ranges. Categorical dimensions only."""
        choices = [_choices(each.distribution) for each in self._dimensions.values()]
        return [dict(zip(self._dimensions, point, strict=True)) for point in product(*choices)]


def read_space(ranges: Mapping[str, Any]) -> Space:
    """The space of a request's ParameterRanges (or ParameterRanges of a training definition)."""
    dimensions: dict[str, Dimension] = {}
    for each in ranges.get("IntegerParameterRanges", []):
        dimensions[each["Name"]] = _integer(each)
    for each in ranges.get("ContinuousParameterRanges", []):
        dimensions[each["Name"]] = _continuous(each)
    for each in ranges.get("CategoricalParameterRanges", []):
        dimensions[each["Name"]] = _Categorical(CategoricalDistribution(each["Values"]))
    return Space(dimensions)


def _integer(given: Mapping[str, str]) -> Dimension:
    low, high = int(given["MinValue"]), int(given["MaxValue"])
    return _Integer(IntDistribution(low, high, log=_logarithmic(given, low=low, high=high)))


def _continuous(given: Mapping[str, str]) -> Dimension:
    low, high = float(given["MinValue"]), float(given["MaxValue"])
    if given.get("ScalingType") == "ReverseLogarithmic":
        return _ReverseLogarithmic(FloatDistribution(1 - high, 1 - low, log=True))
    return _Continuous(FloatDistribution(low, high, log=_logarithmic(given, low=low, high=high)))


def _logarithmic(given: Mapping[str, str], *, low: float, high: float) -> bool:
    """Auto: SageMaker does not say how it chooses; here, two orders of magnitude decide."""
    scaling = given.get("ScalingType", "Auto")
    return scaling == "Logarithmic" or (scaling == "Auto" and low > 0 and high / low >= 100)


def _within(value: _Number, *, distribution: IntDistribution | FloatDistribution) -> _Number:
    close = distribution.low <= value <= distribution.high or any(
        math.isclose(value, bound, rel_tol=1e-9) for bound in (distribution.low, distribution.high)
    )
    if not close:
        raise ValueError(f"{value!r} is outside {distribution.low} to {distribution.high}")
    return type(value)(min(max(value, distribution.low), distribution.high))


def _choices(distribution: BaseDistribution) -> tuple[Any, ...]:
    if not isinstance(distribution, CategoricalDistribution):
        raise TypeError(f"a grid needs categorical ranges, not {distribution!r}")
    return distribution.choices
