"""From values to pixels, and from numbers to text."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from darkroom.rules.evidence import Floats

_NICE = (1.0, 2.0, 2.5, 5.0, 10.0)
_SMALL, _LARGE = 1e-3, 1e5
_FLAT = 1e-12


@dataclass(frozen=True)
class Scale:
    """An axis: `low` lies at `start`, `high` at `end`, in pixels."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    whole: bool = False
    """Whether only whole numbers mean anything."""

    def __call__(self, value: float) -> float:
        """Where a value lies; what lies outside is drawn at the edge."""
        return float(self.at(np.array([value]))[0])

    def at(self, values: Floats) -> Floats:
        """The same for many; NaN and infinities stay NaN."""
        finite = np.where(np.isfinite(values), values, np.nan)
        share = (self._measured(finite) - self._measured(np.array(self.low))) / self._span
        result: Floats = self.start + np.clip(share, 0, 1) * (self.end - self.start)
        return result

    def ticks(self, count: int) -> list[float]:
        """At most about `count` round values within."""
        if self.log and (decades := _decades(self.low, self.high, count=count)):
            return decades
        values = _round_values(self.low, self.high, count=count)
        return [value for value in values if not self.whole or value == int(value)]

    @property
    def _span(self) -> float:
        span = self._measured(np.array(self.high)) - self._measured(np.array(self.low))
        return float(span) or 1.0

    def _measured(self, values: Floats) -> Floats:
        return np.log10(np.maximum(values, self.low)) if self.log else values


def scale(
    values: Iterable[Floats],
    *,
    start: float,
    end: float,
    log: bool = False,
    low: float | None = None,
    high: float | None = None,
) -> Scale:
    """An axis that holds the finite values; `low` and `high` fix its ends."""
    everything = np.hstack([*values, np.empty(0)])
    finite = everything[np.isfinite(everything)]
    positive = finite[finite > 0]
    log = log and len(positive) > 0
    known = positive if log else finite
    least = (float(known.min()) if len(known) else 0.0) if low is None else low
    most = (float(known.max()) if len(known) else 1.0) if high is None else high
    if log:
        least, most = _between_decades(least, most)
    elif low is None or high is None:
        least, most = _with_room(least, most, keep_low=low is not None, keep_high=high is not None)
    return Scale(low=least, high=most, start=start, end=end, log=log)


def number(value: float, *, digits: int = 3) -> str:
    """A figure, short: 0.0123, 1,200, 3e-7."""
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "∞" if value > 0 else "−∞"
    size = abs(value)
    if size and (size < _SMALL or size >= _LARGE):
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}".replace("-", "−")
    if value == int(value):
        return f"{int(value):,}".replace("-", "−")
    text = f"{value:,.1f}" if size >= 1000 else f"{value:.{digits}g}"
    return text.replace("-", "−")


def tick(value: float) -> str:
    """A round value at an axis, with all its digits: neighbours must not look alike."""
    return number(value, digits=6)


def duration(seconds: float) -> str:
    """A time as people say it: 0.8 s, 48 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _with_room(low: float, high: float, *, keep_low: bool, keep_high: bool) -> tuple[float, float]:
    if high - low <= _FLAT * max(abs(low), abs(high), 1e-300):
        low, high = (low if keep_low else low - (abs(low) or 1) / 2), high + (abs(high) or 1) / 2
    room = 0.04 * (high - low)
    touches_zero = low >= 0 and low < 0.3 * high
    least = low if keep_low else 0.0 if touches_zero else low - room
    return least, high if keep_high else high + room


def _between_decades(low: float, high: float) -> tuple[float, float]:
    """With a little room, and at least a factor of ten."""
    least, most = math.log10(low), math.log10(high)
    lack = max(0.0, 1.0 - (most - least)) / 2
    room = 0.04 * (most - least) + lack
    return 10.0 ** max(least - room, -300.0), 10.0 ** min(most + room, 300.0)


def _decades(low: float, high: float, *, count: int) -> list[float]:
    """Powers of ten, thinned; none where fewer than two lie within."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    every = max(1, math.ceil((last - first + 1) / max(count, 1)))
    values = [10.0**power for power in range(first, last + 1) if power % every == 0]
    if len(values) > 1:
        return values
    return [
        factor * 10.0**power
        for power in range(first - 1, last + 1)
        for factor in (1, 2, 5)
        if low <= factor * 10.0**power <= high
    ]


def _round_values(low: float, high: float, *, count: int) -> list[float]:
    rough = (high - low) / max(count, 1)
    if rough <= 0 or not math.isfinite(rough):
        return [low]
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in _NICE if size * factor >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]
