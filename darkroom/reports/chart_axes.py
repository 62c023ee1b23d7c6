"""Escaped SVG elements, scales, ticks, frames and marks that the charts share."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from darkroom.telemetry.evidence import Floats

# --- svg ---
# SVG elements as text; every value is escaped.

Value = str | float | int

HALF_WIDTH, FULL_WIDTH = 500.0, 1040.0
"""Of pictures, in CSS pixels."""


def element(name: str, *, content: Markup | str = "", **attributes: Value | None) -> Markup:
    """One element; `class_` is written class, `stroke_width` stroke-width, None not at all."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_text(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{written}>{escape(content)}</{name}>")  # noqa: S704 - escaped above


def joined(parts: Iterable[Markup]) -> Markup:
    """One after the other."""
    return Markup("").join(parts)


def title(text: str) -> Markup:
    """What a browser shows when a pointer rests on the element."""
    return element("title", content=text)


def drawing(content: Markup, *, width: float, height: float, label: str, kind: str = "") -> Markup:
    """A whole picture as SVG. Half-wide ones are readable on a phone, wide ones scroll there.

    Args:
        content: the elements, in the coordinates of the picture.
        width: in CSS pixels; the class half or full follows from it.
        height: in CSS pixels.
        label: what the picture shows, for those who cannot see it.
        kind: a further class of the style sheet.
    """
    size = "half" if width <= HALF_WIDTH else "full"
    return element(
        "svg",
        content=content,
        class_=f"chart {size} {kind}".rstrip(),
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_label=label,
    )


@dataclass(frozen=True)
class Key:
    """An entry of a legend."""

    label: str
    colour: str
    """A class of the style sheet, such as 'blue'."""
    shape: str = "line"
    """'line', 'faint', 'dashed' or 'area'."""


def legend(keys: Sequence[Key]) -> Markup:
    """What the colours mean, as text that wraps; nothing for a single unnamed line."""
    named = [key for key in keys if key.label]
    if not named:
        return Markup("")
    entries = (
        element(
            "span",
            content=element("i", class_=f"{key.shape} c-{key.colour}") + Markup(escape(key.label)),  # noqa: S704
        )
        for key in named
    )
    return element("div", content=joined(entries), class_="legend")


def _text(value: Value) -> str:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)


# --- scales ---
# From values to pixels, and from numbers to text.

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
    """An axis that holds the finite values; `low` and `high` fix the ends of a linear one.

    Args:
        values: of everything that is drawn; NaN and infinities are passed over.
        start: where the low end lies, in pixels; of a y axis it is the bottom.
        end: where the high end lies.
        log: logarithmic, unless no value is positive; the ends then lie a little beyond the values,
            or beyond `low` and `high`, which have to be positive.
        low, high: the ends; None: by the values, with some room.
    """
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


# --- axes ---

TEXT_HEIGHT = 11.0
_PIXELS_A_TICK_X, _PIXELS_A_TICK_Y = 85.0, 30.0


@dataclass(frozen=True)
class Frame:
    """The rectangle in which values are drawn, in pixels of the picture."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top


def frame(
    *, width: float, height: float, above: float = 22.0, below: float = 36.0, left: float = 62.0
) -> Frame:
    """The rectangle that is left of a picture for values, beside ticks and labels.

    Args:
        width: of the whole picture, in CSS pixels.
        height: of the whole picture.
        above: room for the name of the y axis, and for flags.
        below: room for the values and the name of the x axis.
        left: room for the values of the y axis.
    """
    return Frame(left=left, top=above, right=width - 12.0, bottom=height - below)


def axes(
    place: Frame,
    *,
    x: Scale,
    y: Scale,
    x_label: str,
    y_label: str,
    write_y: Callable[[float], str] = tick,
) -> Markup:
    """Grid lines, their values and the names of the axes.

    Args:
        place: the rectangle in which values are drawn.
        x_label: written below, in the middle; empty: nothing.
        y_label: written above, at the left edge.
        write_y: a value of the y axis as text.
    """
    return joined(
        [
            *(_row(value, place=place, y=y, write=write_y) for value in _y_ticks(place, y=y)),
            *(_column(value, place=place, x=x) for value in _x_ticks(place, x=x)),
            element(
                "line",
                x1=place.left,
                x2=place.right,
                y1=place.bottom,
                y2=place.bottom,
                class_="axis",
            ),
            caption(
                x_label, x=(place.left + place.right) / 2, y=place.bottom + 31, anchor="middle"
            ),
            caption(y_label, x=0, y=place.top - 9),
        ]
    )


def caption(text: str, *, x: float, y: float, anchor: str = "start", kind: str = "") -> Markup:
    """A piece of text in the picture; nothing where the text is empty.

    Args:
        text: escaped here.
        x, y: in pixels; y is the base line of the letters.
        anchor: SVG's text-anchor, what lies at x: 'start', 'middle' or 'end'.
        kind: a class of the style sheet.
    """
    if not text:
        return Markup("")
    return element("text", content=text, x=x, y=y, text_anchor=anchor, class_=kind or None)


def _y_ticks(place: Frame, *, y: Scale) -> list[float]:
    return y.ticks(max(2, int(place.height // _PIXELS_A_TICK_Y)))


def _x_ticks(place: Frame, *, x: Scale) -> list[float]:
    return x.ticks(max(2, int(place.width // _PIXELS_A_TICK_X)))


def _row(value: float, *, place: Frame, y: Scale, write: Callable[[float], str]) -> Markup:
    at = y(value)
    line = element("line", x1=place.left, x2=place.right, y1=at, y2=at, class_="grid")
    return line + caption(write(value), x=place.left - 6, y=at + 3.5, anchor="end")


def _column(value: float, *, place: Frame, x: Scale) -> Markup:
    at = x(value)
    line = element("line", x1=at, x2=at, y1=place.bottom, y2=place.bottom + 4, class_="axis")
    return line + caption(tick(value), x=at, y=place.bottom + 16, anchor="middle")


# --- marks ---
# What is marked on a chart: flags above it, lines across it, names below it.

FLAG_ROW = 19.0
"""Height of a row of flags."""
_FLAG_ROWS = 4


@dataclass(frozen=True)
class Flag:
    """A number above the chart, that leads to where it is explained."""

    x: float
    number: int
    severity: str
    title: str


@dataclass(frozen=True)
class Upright:
    """A line from top to bottom."""

    x: float
    label: str = ""
    kind: str = "epoch"
    """'epoch' or 'best'."""


@dataclass(frozen=True)
class Row:
    """Names under the axis, each in the middle of its span."""

    label: str
    spans: Sequence[tuple[float, float, str]]


def draw_shade(span: tuple[float, float], *, place: Frame, x: Scale) -> Markup:
    """A stretch of the axis in which something is wrong."""
    left, right = x(span[0]), x(span[1])
    return element(
        "rect",
        x=left,
        y=place.top,
        width=max(1.0, right - left),
        height=place.height,
        class_="area c-red",
    )


def draw_upright(one: Upright, *, place: Frame, x: Scale) -> Markup:
    """The line and its label, on the side where there is room."""
    at = x(one.x)
    line = element(
        "line", x1=at, x2=at, y1=place.top, y2=place.bottom, class_=f"upright {one.kind}"
    )
    turned = at > place.left + 0.85 * place.width
    return line + caption(
        one.label,
        x=at - 5 if turned else at + 5,
        y=place.top + 11,
        anchor="end" if turned else "start",
        kind=f"on-{one.kind}",
    )


def flag_rows(flags: Sequence[Flag], *, x: Scale) -> list[list[int]]:
    """Indices of the flags, in rows in which none covers another."""
    rows: list[list[int]] = []
    for index in sorted(range(len(flags)), key=lambda i: flags[i].x):
        at = x(flags[index].x)
        free = next((row for row in rows if at - x(flags[row[-1]].x) >= FLAG_ROW), None)
        if free is not None:
            free.append(index)
        elif len(rows) < _FLAG_ROWS:
            rows.append([index])
    return rows


def draw_flags(
    flags: Sequence[Flag], *, rows: list[list[int]], place: Frame, x: Scale
) -> list[Markup]:
    """The flags above a chart, each a link to the finding of its number.

    Args:
        rows: indices of the flags by row, from the lowest row up, as `flag_rows` gives them; a flag
            that is in none is not drawn.
        place: the rectangle of values, down to whose bottom the poles reach.
        x: the axis on which the flags stand.
    """
    return [
        _flag(
            flags[index], x=x(flags[index].x), y=9 + FLAG_ROW * (len(rows) - 1 - level), place=place
        )
        for level, row in enumerate(rows)
        for index in row
    ]


def _flag(flag: Flag, *, x: float, y: float, place: Frame) -> Markup:
    content = [
        title(flag.title),
        element("line", x1=x, x2=x, y1=y, y2=place.bottom, class_="pole"),
        element("circle", cx=x, cy=y, r=8.5),
        element("text", content=str(flag.number), x=x, y=y + 3.7, text_anchor="middle"),
    ]
    return element(
        "a", content=joined(content), href=f"#finding-{flag.number}", class_=f"flag {flag.severity}"
    )


def draw_names(row: Row, *, place: Frame, x: Scale, x_label: str) -> Markup:
    """Names under the axis, as far as there is room for them.

    Args:
        row: names with their spans on the x axis.
        place: the rectangle of values, under which they are written.
        x_label: of the numbers at the axis; written to their left.
    """
    names, free_from = [], place.left
    for start, end, name in row.spans:
        middle, room = (x(start) + x(end)) / 2, 7.0 * len(name) + 8
        if middle - room / 2 >= free_from:
            names.append(caption(name, x=middle, y=place.bottom + 33, anchor="middle", kind="name"))
            free_from = middle + room / 2
    beside = place.left - 6
    return (
        caption(x_label, x=beside, y=place.bottom + 16, anchor="end")
        + caption(row.label, x=beside, y=place.bottom + 33, anchor="end")
        + joined(names)
    )
