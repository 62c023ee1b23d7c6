"""Charts as SVG inside a page: small, crisp on paper, in the page's colours, light and dark.

Colours are classes (`c-blue`), which templates/charts.css.j2 defines. Nothing here refers to
anything outside the element itself, so that a page stays complete in itself. chart_axes.py has
what all of them share: escaped elements, scales, ticks, frames, marks.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from darkroom.reports.chart_axes import (
    FLAG_ROW,
    FULL_WIDTH,
    TEXT_HEIGHT,
    Flag,
    Frame,
    Key,
    Row,
    Scale,
    Upright,
    axes,
    caption,
    draw_flags,
    draw_names,
    draw_shade,
    draw_upright,
    drawing,
    duration,
    element,
    flag_rows,
    frame,
    joined,
    legend,
    number,
    scale,
    tick,
    title,
)
from darkroom.reports.pages import data_uri
from darkroom.telemetry.evidence import Floats

# --- lines ---
# Lines over a common axis, with bands, marks and thresholds.

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


# --- stacks ---
# Columns, or one bar, cut into parts.

_GAP = 0.18  # of a column
_WIDEST = 64.0


@dataclass(frozen=True)
class Part:
    """What a colour stands for."""

    name: str
    label: str
    colour: str


@dataclass(frozen=True)
class Column:
    """One column: seconds by part."""

    label: str
    seconds: Mapping[str, float]


def stacked_columns(
    columns: Sequence[Column], *, parts: Sequence[Part], x_label: str, label: str
) -> Markup:
    """Seconds by part, a column for each epoch or stretch of steps.

    Args:
        columns: seconds by the name of a part.
        parts: from the bottom up; they are the entries of the legend too.
        x_label: what a column is, such as epoch.
        label: what the picture shows, for those who cannot see it.
    """
    height = 240.0
    place = frame(width=FULL_WIDTH, height=height)
    totals = [sum(column.seconds.values()) for column in columns]
    y = scale([np.array(totals)], start=place.bottom, end=place.top, low=0.0)
    x = Scale(low=0, high=len(columns), start=place.left, end=place.right)
    content = [
        axes(place, x=_NO_TICKS, y=y, x_label=x_label, y_label="seconds"),
        *(_column(column, at=x, index=i, y=y, parts=parts) for i, column in enumerate(columns)),
        *_names(columns, x=x, y=place.bottom + 16),
    ]
    keys = [Key(part.label, colour=part.colour, shape="area") for part in parts]
    picture = drawing(joined(content), width=FULL_WIDTH, height=height, label=label)
    return legend(keys) + picture


class _Unmarked(Scale):
    def ticks(self, count: int) -> list[float]:
        return []


_NO_TICKS = _Unmarked(low=0, high=1, start=0, end=1)


def share_bar(seconds: Mapping[str, float], *, parts: Sequence[Part], label: str) -> Markup:
    """One bar over the whole width: what share of the time went where."""
    total = sum(seconds.values()) or 1.0
    content, left = [], 0.0
    for part in parts:
        share = seconds.get(part.name, 0.0) / total
        content.append(_share(part, share=share, seconds=seconds.get(part.name, 0.0), left=left))
        left += share * FULL_WIDTH
    return drawing(joined(content), width=FULL_WIDTH, height=30, label=label)


def _share(part: Part, *, share: float, seconds: float, left: float) -> Markup:
    width = share * FULL_WIDTH
    told = f"{part.label}: {share:.0%}, {duration(seconds)}"
    box = element(
        "rect",
        content=title(told),
        x=left,
        y=0,
        width=max(0.0, width - 1),
        height=30,
        class_=f"part c-{part.colour}",
    )
    if width < 46:
        return box
    return box + caption(f"{share:.0%}", x=left + width / 2, y=19, anchor="middle", kind="on-part")


def _column(column: Column, *, at: Scale, index: int, y: Scale, parts: Sequence[Part]) -> Markup:
    left, right = at(index), at(index + 1)
    width = min(_WIDEST, (right - left) * (1 - _GAP))
    x = (left + right - width) / 2
    boxes, below = [], 0.0
    for part in parts:
        seconds = column.seconds.get(part.name, 0.0)
        top, bottom = y(below + seconds), y(below)
        if bottom - top > 0.05:
            boxes.append(
                element(
                    "rect",
                    content=title(f"{column.label}, {part.label}: {duration(seconds)}"),
                    x=x,
                    y=top,
                    width=width,
                    height=bottom - top,
                    class_=f"part c-{part.colour}",
                )
            )
        below += seconds
    return joined(boxes)


def _names(columns: Sequence[Column], *, x: Scale, y: float) -> list[Markup]:
    names, free_from = [], 0.0
    for index, column in enumerate(columns):
        middle, room = (x(index) + x(index + 1)) / 2, 7.0 * len(column.label) + 10
        if middle - room / 2 >= free_from:
            names.append(caption(column.label, x=middle, y=y, anchor="middle"))
            free_from = middle + room / 2
    return names


# --- heat ---
# Rows by columns as colours: layers by steps.

_ANCHORS = (
    *((68, 1, 84), (71, 44, 122), (59, 81, 139), (44, 113, 142), (33, 144, 141)),
    *((39, 173, 129), (92, 200, 99), (170, 220, 50), (253, 231, 37)),
)
"""Of viridis, evenly spaced: as dark as they are small, also for the colour-blind."""
_BROKEN = (224, 49, 49)

_LEFT, _KEY, _TOP, _BOTTOM = 190.0, 72.0, 20.0, 40.0
_TALL_ROW, _LOW_ROW, _MAX_HEIGHT = 14.0, 4.0, 640.0


@dataclass(frozen=True)
class Heat:
    """What is drawn: NaN leaves a hole."""

    rows: Sequence[str]
    columns: Sequence[str]
    values: Floats
    """(rows, columns)"""
    broken: NDArray[np.bool_]
    """(rows, columns): where values were not finite; drawn red."""


def heat_map(
    heat: Heat, *, low: float, high: float, log: bool, unit: str, column_label: str, label: str
) -> Markup:
    """The map, its row names as far as they can be read, and the key to its colours.

    Args:
        heat: at least one row and one column.
        low, high: values at the ends of the colours; what lies beyond is drawn as they are.
        log: logarithmic colours; `low` is then positive.
        unit: what the values are, over the scale of colours.
        column_label: what a column is, such as step.
        label: what the picture shows, for those who cannot see it.
    """
    count = len(heat.rows)
    row = min(_TALL_ROW, max(_LOW_ROW, _MAX_HEIGHT / count))
    height = row * count
    width = FULL_WIDTH - _LEFT - _KEY
    colours = Scale(low=low, high=high, start=0.0, end=1.0, log=log)
    content = [
        element("rect", x=_LEFT, y=_TOP, width=width, height=height, class_="hole"),
        _picture(_painted(heat, colours=colours), x=_LEFT, y=_TOP, width=width, height=height),
        *(_hover(index, heat=heat, row=row, width=width) for index in range(count)),
        *_row_names(heat.rows, row=row),
        *_column_names(heat.columns, width=width, y=_TOP + height, label=column_label),
        _colour_key(colours, height=height, unit=unit),
    ]
    return drawing(
        joined(content),
        width=FULL_WIDTH,
        height=max(_TOP + height, 150) + _BOTTOM,
        label=label,
        kind="heat",
    )


def _painted(heat: Heat, *, colours: Scale) -> NDArray[np.uint8]:
    """(rows, columns, 4)"""
    share = colours.at(heat.values)
    pixels = np.zeros((*share.shape, 4), dtype=np.uint8)
    pixels[..., :3] = _coloured(np.nan_to_num(share))
    pixels[..., 3] = np.where(np.isfinite(share), 255, 0)
    pixels[heat.broken] = (*_BROKEN, 255)
    return pixels


def _coloured(share: Floats) -> NDArray[np.uint8]:
    at = np.linspace(0, 1, len(_ANCHORS))
    channels = [np.interp(share, at, [anchor[c] for anchor in _ANCHORS]) for c in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def _picture(
    pixels: NDArray[np.uint8], *, x: float, y: float, width: float, height: float
) -> Markup:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return element(
        "image",
        href=data_uri(buffer.getvalue()),
        x=x,
        y=y,
        width=width,
        height=height,
        preserveAspectRatio="none",
        class_="pixels",
    )


def _hover(index: int, *, heat: Heat, row: float, width: float) -> Markup:
    """What a pointer reads of a row."""
    values = heat.values[index][np.isfinite(heat.values[index])]
    told = f"{number(values.min())} to {number(values.max())}" if len(values) else "no values"
    if heat.broken[index].any():
        told += f"; not finite in {int(heat.broken[index].sum())} of {len(heat.columns)}"
    return element(
        "rect",
        content=title(f"{heat.rows[index]}: {told}"),
        x=_LEFT,
        y=_TOP + index * row,
        width=width,
        height=row,
        class_="hover",
    )


def _row_names(rows: Sequence[str], *, row: float) -> list[Markup]:
    """Each row's name, or where rows are low, that of the part of the network, bracketed."""
    if row >= TEXT_HEIGHT:
        middle = _TOP + row / 2 + 4
        return [
            caption(shortened(name), x=_LEFT - 8, y=middle + index * row, anchor="end", kind="name")
            for index, name in enumerate(rows)
        ]
    drawn: list[Markup] = []
    free_from = 0.0
    for name, first, last in _parts(rows, row=row):
        top, bottom = _TOP + first * row, _TOP + (last + 1) * row
        drawn.append(
            element(
                "path", d=f"M{_LEFT - 3:g},{top + 1:.1f}h-3V{bottom - 1:.1f}h3", class_="bracket"
            )
        )
        middle = (top + bottom) / 2
        if middle - TEXT_HEIGHT / 2 >= free_from:
            drawn.append(
                caption(shortened(name), x=_LEFT - 10, y=middle + 4, anchor="end", kind="name")
            )
            free_from = middle + TEXT_HEIGHT / 2
    return drawn


def _parts(rows: Sequence[str], *, row: float) -> list[tuple[str, int, int]]:
    """Neighbouring rows whose names begin alike, as finely as most can be labelled."""
    coarse: list[tuple[str, int, int]] = []
    for depth in range(1, 5):
        fine = _begin_alike(rows, depth=depth)
        if coarse and len(fine) * TEXT_HEIGHT > len(rows) * row:
            break
        coarse = fine
    return coarse


def _begin_alike(rows: Sequence[str], *, depth: int) -> list[tuple[str, int, int]]:
    parts, first = [], 0
    for name, members in groupby(rows, key=lambda row: ".".join(row.split(".")[:depth])):
        count = len(list(members))
        parts.append((name, first, first + count - 1))
        first += count
    return parts


def shortened(name: str, *, length: int = 28) -> str:
    """The name with its middle left out where it is long: ends tell layers apart."""
    if len(name) <= length:
        return name
    return f"{name[: length // 2 - 1]}…{name[-(length - length // 2) :]}"


def _column_names(columns: Sequence[str], *, width: float, y: float, label: str) -> list[Markup]:
    cell = width / len(columns)
    names, free_from = [], _LEFT - 20
    for index, name in enumerate(columns):
        middle, room = _LEFT + (index + 0.5) * cell, 7.0 * len(name) + 16
        if middle - room / 2 >= free_from and middle + room / 2 <= _LEFT + width + 30:
            names.append(element("line", x1=middle, x2=middle, y1=y, y2=y + 4, class_="axis"))
            names.append(caption(name, x=middle, y=y + 16, anchor="middle"))
            free_from = middle + room / 2
    return [*names, caption(label, x=_LEFT + width / 2, y=y + 33, anchor="middle")]


def _colour_key(colours: Scale, *, height: float, unit: str) -> Markup:
    """The scale of colours at the right, with its values and its unit."""
    top, tall = _TOP, min(max(height, 110.0), 220.0)
    left = FULL_WIDTH - _KEY + 18
    ramp = _coloured(np.linspace(1, 0, 64, dtype=np.float64))[:, None, :]
    along = Scale(low=colours.low, high=colours.high, start=top + tall, end=top, log=colours.log)
    ticks = [
        caption(tick(value), x=left + 17, y=along(value) + 3.5)
        for value in along.ticks(max(2, int(tall // 30)))
    ]
    return joined(
        [
            caption(unit, x=FULL_WIDTH, y=_TOP - 8, anchor="end"),
            _picture(ramp, x=left, y=top, width=12, height=tall),
            *ticks,
        ]
    )
