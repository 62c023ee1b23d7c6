"""A grid of pictures, each framed and titled in the colour of how well it was recognised."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from darkroom.images import ImageError, decode
from darkroom.reports.figures import GREEN, GREY, RED, drawable, new_figure

PICTURE_SIDE = 240
"""Pixels of the longer side, as drawn."""

_COLUMNS = 6
_INCHES_WIDE, _INCHES_HIGH, _INCHES_OF_NOTE = 1.8, 2.25, 0.16
_DOTS_PER_INCH = 110
_TITLE_INCHES = 0.4
_NAME_LENGTH = 22
_NOTE_LENGTH = 32
_FRAME_POINTS = 2.5


@dataclass(frozen=True)
class Tile:
    """One picture and what is written around it."""

    title: str
    colour: str
    picture: Image.Image | None = None
    """None: it could not be read."""
    note: str = ""
    """Below, small: where it comes from."""

    @classmethod
    def of(
        cls,
        picture: Image.Image | None,
        *,
        actual: str | None,
        predicted: str,
        probability: float,
        note: str = "",
    ) -> Self:
        """Green where the prediction is right, red where it is wrong, grey where nobody knows."""
        said = f"{drawable(predicted, length=_NAME_LENGTH)} {probability:.0%}"
        if actual is None:
            return cls(said, colour=GREY, picture=picture, note=note)
        colour = GREEN if predicted == actual else RED
        title = f"{drawable(actual, length=_NAME_LENGTH)} →\n{said}"
        return cls(title, colour=colour, picture=picture, note=note)


def thumbnail(source: bytes | Path) -> Image.Image | None:
    """An encoded image as small as it is drawn; None where it cannot be read."""
    try:
        picture = decode(source, shorter_side=PICTURE_SIDE)
    except (ImageError, OSError):
        return None
    picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    return picture


def picture_grid(tiles: Sequence[Tile], *, title: str) -> Figure:
    """The tiles in rows of six."""
    columns = max(1, min(_COLUMNS, len(tiles)))
    rows = max(1, -(-len(tiles) // columns))
    row_height = _INCHES_HIGH + (_INCHES_OF_NOTE if any(tile.note for tile in tiles) else 0)
    figure = new_figure(
        width=max(4.0, _INCHES_WIDE * columns),
        height=row_height * rows + _TITLE_INCHES,
        dots_per_inch=_DOTS_PER_INCH,
    )
    figure.suptitle(title)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(tiles) :]:
        axes.set_axis_off()
    for axes, tile in zip(grid.flat, tiles, strict=False):
        _draw(axes, tile)
    return figure


def _draw(axes: Axes, tile: Tile) -> None:
    """The picture in the middle of a square, so that what is written stands in lines."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    width, height = tile.picture.size if tile.picture else (1, 1)
    side = max(width, height)
    left, top = (side - width) / 2, (side - height) / 2
    if tile.picture:
        place = (left, left + width, top + height, top)
        axes.imshow(np.asarray(tile.picture), extent=place)
    else:
        axes.text(0.5, 0.5, "unreadable", ha="center", va="center", color=GREY)
    frame = Rectangle((left, top), width, height, fill=False, clip_on=False)
    frame.set(edgecolor=tile.colour, linewidth=_FRAME_POINTS)
    axes.add_patch(frame)
    axes.set(xlim=(0, side), ylim=(side, 0), aspect="equal")
    axes.set_title(tile.title, color=tile.colour, fontsize=8, parse_math=False)
    if tile.note:
        text = drawable(_end_of(tile.note), length=_NOTE_LENGTH)
        axes.set_xlabel(text, color=GREY, fontsize=6, parse_math=False, labelpad=2)


def _end_of(name: str) -> str:
    """The end of a long name: there it differs from the others."""
    return name if len(name) <= _NOTE_LENGTH else f"…{name[-_NOTE_LENGTH + 1 :]}"
