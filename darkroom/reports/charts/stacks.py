"""Columns, or one bar, cut into parts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from darkroom.reports.charts.axes import axes, caption, frame
from darkroom.reports.charts.scales import Scale, duration, scale
from darkroom.reports.charts.svg import FULL_WIDTH, Key, drawing, element, joined, legend, title

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
    """Seconds by part, a column for each epoch or stretch of steps."""
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
