"""Rows by columns as colours: layers by steps."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from darkroom.reports.charts.axes import TEXT_HEIGHT, caption
from darkroom.reports.charts.scales import Scale, number, tick
from darkroom.reports.charts.svg import FULL_WIDTH, drawing, element, joined, title
from darkroom.reports.pages import data_uri
from darkroom.rules.evidence import Floats

_ANCHORS = (
    *((68, 1, 84), (71, 44, 122), (59, 81, 139), (44, 113, 142), (33, 144, 141)),
    *((39, 173, 129), (92, 200, 99), (170, 220, 50), (253, 231, 37)),
)
"""Of viridis, evenly spaced: as dark as they are small, also for the colour-blind."""
_BROKEN = (224, 49, 49)

_LEFT, _KEY, _TOP, _BOTTOM = 190.0, 72.0, 20.0, 40.0
_TALL_ROW, _LOW_ROW, _MOST_HEIGHT = 14.0, 4.0, 640.0


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
    """The map, its row names as far as they can be read, and its scale of colours."""
    count = len(heat.rows)
    row = min(_TALL_ROW, max(_LOW_ROW, _MOST_HEIGHT / count))
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
