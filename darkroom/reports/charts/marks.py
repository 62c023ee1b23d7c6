"""What is marked on a chart: flags above it, lines across it, names below it."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from darkroom.reports.charts.axes import Frame, caption
from darkroom.reports.charts.scales import Scale
from darkroom.reports.charts.svg import element, joined, title

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
    """Each leads to the finding of its number."""
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
    """Under the axis, as far as there is room for them."""
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
