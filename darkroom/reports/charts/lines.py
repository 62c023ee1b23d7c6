"""Lines over a common axis, with bands, marks and thresholds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from darkroom.reports.charts.axes import Frame, axes, frame
from darkroom.reports.charts.marks import (
    FLAG_ROW,
    Flag,
    Row,
    Upright,
    draw_flags,
    draw_names,
    draw_shade,
    draw_upright,
    flag_rows,
)
from darkroom.reports.charts.scales import Scale, number, scale, tick
from darkroom.reports.charts.svg import (
    FULL_WIDTH,
    Key,
    drawing,
    element,
    joined,
    legend,
)
from darkroom.rules.evidence import Floats

_FEW_POINTS = 30
_EXTREME_SHARE = 0.2  # percent at either end that may lie outside, where `clipped`


@dataclass(frozen=True)
class Line:
    """A line; NaN and infinities interrupt it."""

    label: str
    x: Floats
    y: Floats
    colour: str
    shape: str = "line"
    """'line', 'faint', 'dashed', or 'dots': a line, with a dot at each value if they are few."""
    clipped: bool = False
    """Whether the few most extreme values may lie outside."""


@dataclass(frozen=True)
class Band:
    """The area between two lines."""

    label: str
    x: Floats
    low: Floats
    high: Floats
    colour: str


def line_chart(
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    label: str,
    width: float = FULL_WIDTH,
    height: float = 240.0,
    log: bool = False,
    low: float | None = None,
    high: float | None = None,
    x_range: tuple[float, float] | None = None,
    whole: bool = True,
    bands: Sequence[Band] = (),
    threshold: float | None = None,
    threshold_label: str = "threshold",
    shades: Sequence[tuple[float, float]] = (),
    flags: Sequence[Flag] = (),
    uprights: Sequence[Upright] = (),
    row: Row | None = None,
    write_y: Callable[[float], str] = tick,
) -> Markup:
    """The chart and its legend.

    Args:
        label: what it shows, for those who cannot see it.
        log: logarithmic y axis, as far as there are positive values.
        low, high: fixed ends of the y axis.
        x_range: of the x axis; by default that of the lines.
        whole: whether x is counted, such as steps.
        threshold: drawn across.
        shades: spans of x that are marked as bad.
        row: names under the x axis, such as epochs under steps.
    """
    rows = flag_rows(flags, x=_x_scale(lines, place=_FULL, x_range=x_range, whole=whole))
    place = frame(
        width=width,
        height=height + FLAG_ROW * len(rows),
        above=22 + FLAG_ROW * len(rows),
        below=52 if row else 36,
    )
    x = _x_scale(lines, place=place, x_range=x_range, whole=whole)
    y = _y_scale(lines, bands=bands, threshold=threshold, place=place, ends=(low, high), log=log)
    content = [
        axes(
            place,
            x=x,
            y=y,
            x_label="" if row else x_label,
            y_label=y_label,
            write_y=write_y,
        ),
        *(draw_shade(span, place=place, x=x) for span in shades),
        *(draw_upright(one, place=place, x=x) for one in uprights),
        *(_band(band, x=x, y=y) for band in bands),
        *(_line(line, x=x, y=y) for line in lines),
        _threshold(threshold, place=place, y=y),
        *draw_flags(flags, rows=rows, place=place, x=x),
        draw_names(row, place=place, x=x, x_label=x_label) if row else Markup(""),
    ]
    picture = drawing(
        joined(content), width=width, height=height + FLAG_ROW * len(rows), label=label
    )
    return legend(_keys(lines, bands=bands, threshold=threshold, name=threshold_label)) + picture


_FULL = Frame(left=0, top=0, right=FULL_WIDTH, bottom=100)


def _x_scale(
    lines: Sequence[Line],
    *,
    place: Frame,
    x_range: tuple[float, float] | None,
    whole: bool,
) -> Scale:
    ends = x_range or _ends([line.x for line in lines])
    if ends[0] == ends[1]:
        ends = (ends[0] - 0.5, ends[1] + 0.5)
    return Scale(low=ends[0], high=ends[1], start=place.left, end=place.right, whole=whole)


def _ends(arrays: Sequence[Floats]) -> tuple[float, float]:
    values = np.concatenate([*arrays, np.array([])])
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)


def _y_scale(
    lines: Sequence[Line],
    *,
    bands: Sequence[Band],
    threshold: float | None,
    place: Frame,
    ends: tuple[float | None, float | None],
    log: bool,
) -> Scale:
    values = [
        *(_without_extremes(line.y) if line.clipped else line.y for line in lines),
        *(side for band in bands for side in (band.low, band.high)),
        np.array([] if threshold is None else [threshold]),
    ]
    return scale(values, start=place.bottom, end=place.top, log=log, low=ends[0], high=ends[1])


def _without_extremes(values: Floats) -> Floats:
    finite: Floats = values[np.isfinite(values)]
    if len(finite) < 100:
        return finite
    low, high = np.percentile(finite, [_EXTREME_SHARE, 100 - _EXTREME_SHARE])
    kept: Floats = finite[(finite >= low) & (finite <= high)]
    return kept


def _line(line: Line, *, x: Scale, y: Scale) -> Markup:
    at_x, at_y = thinned(x.at(line.x), y.at(line.y))
    kind = "line" if line.shape == "dots" else line.shape
    drawn = element("path", d=path(at_x, at_y), class_=f"{kind} c-{line.colour}")
    if line.shape == "dots" and len(at_x) <= _FEW_POINTS:
        drawn += _dots(line, x=at_x, y=at_y)
    elif line.shape != "faint":
        drawn += _lonely(at_x, at_y, colour=line.colour)
    return drawn


def _dots(line: Line, *, x: Floats, y: Floats) -> Markup:
    return joined(
        element("circle", cx=float(a), cy=float(b), r=3, class_=f"dot c-{line.colour}")
        for a, b in zip(x, y, strict=True)
        if np.isfinite(a) and np.isfinite(b)
    )


def _lonely(x: Floats, y: Floats, *, colour: str) -> Markup:
    """Dots for values between two gaps, which no line would show."""
    known = np.concatenate([[False], np.isfinite(x) & np.isfinite(y), [False]])
    alone = np.flatnonzero(known[1:-1] & ~known[:-2] & ~known[2:])
    return joined(
        element("circle", cx=float(x[i]), cy=float(y[i]), r=2.5, class_=f"dot c-{colour}")
        for i in alone
    )


def thinned(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Of values that share a pixel, the least and the largest: looks the same, and is small."""
    if len(x) <= 2 * FULL_WIDTH:
        return x, y
    pixel = np.round(np.where(np.isfinite(x), x, -1)).astype(np.int64)
    kept: list[int] = []
    for chunk in np.split(np.arange(len(x)), np.flatnonzero(np.diff(pixel)) + 1):
        values = y[chunk]
        if np.isfinite(values).any():
            kept += sorted({int(chunk[np.nanargmin(values)]), int(chunk[np.nanargmax(values)])})
        else:
            kept.append(int(chunk[0]))
    return x[kept], y[kept]


def path(x: Floats, y: Floats) -> str:
    """Through the points, interrupted where one is unknown."""
    parts, is_drawn = [], False
    for a, b in zip(x, y, strict=True):
        if np.isfinite(a) and np.isfinite(b):
            parts.append(f"{'L' if is_drawn else 'M'}{a:.1f},{b:.1f}")
            is_drawn = True
        else:
            is_drawn = False
    return "".join(parts)


def _band(band: Band, *, x: Scale, y: Scale) -> Markup:
    known = np.isfinite(band.low) & np.isfinite(band.high)
    if not known.any():
        return Markup("")
    across = x.at(band.x[known])
    outline = path(
        np.concatenate([across, across[::-1]]),
        np.concatenate([y.at(band.high[known]), y.at(band.low[known])[::-1]]),
    )
    return element("path", d=f"{outline}Z", class_=f"area c-{band.colour}")


def _threshold(value: float | None, *, place: Frame, y: Scale) -> Markup:
    if value is None or not np.isfinite(value):
        return Markup("")
    at = y(value)
    return element("line", x1=place.left, x2=place.right, y1=at, y2=at, class_="threshold c-red")


def _keys(
    lines: Sequence[Line], *, bands: Sequence[Band], threshold: float | None, name: str
) -> list[Key]:
    """A line that stands alone needs no name: the axis has it."""
    if len(lines) == 1 and not bands and threshold is None:
        return []
    return [
        *(Key(line.label, colour=line.colour, shape=_shape(line)) for line in lines),
        *(Key(band.label, colour=band.colour, shape="area") for band in bands),
        *([] if threshold is None else [Key(f"{name} {number(threshold)}", "red", "dashed")]),
    ]


def _shape(line: Line) -> str:
    return "line" if line.shape == "dots" else line.shape
