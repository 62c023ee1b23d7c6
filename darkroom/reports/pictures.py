"""A grid of pictures, each framed and titled in the colour of how well it was recognised."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path, PurePosixPath
from typing import Generic, Self, TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from darkroom.data.found_image import FoundImage
from darkroom.images import ImageError, decode
from darkroom.models.prediction import Prediction
from darkroom.reports.figures import GREEN, GREY, RED, drawable, new_figure

# --- picture grid ---

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
        """A prediction as a tile: green where it is right, red where wrong, grey where not known.

        Args:
            picture: None: it could not be read.
            actual: class name; None: not known.
            predicted: class name; both are cut where they are long.
            probability: of the predicted class, in [0, 1].
            note: written below, small.
        """
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


# --- picture choice ---
# Which of any number of predictions a grid shows, chosen while they go by.

_WRONG, _RIGHT, _UNKNOWN, _UNREADABLE = range(4)
_TURNS = (_WRONG, _RIGHT, _UNKNOWN, _WRONG, _RIGHT, _UNKNOWN, _UNREADABLE)
"""Who gets the next place: wrong and right ones as many, unreadable ones half as many."""

_ERROR_LENGTH = 30
_Item = TypeVar("_Item")


class EvenSample(Generic[_Item]):
    """Items at even distances from a stream of unknown length, by no chance.

    Every k-th item is kept; when twice as many as wanted are held, every second of them is
    dropped and k doubles.
    """

    def __init__(self, size: int) -> None:
        self._size, self._step, self._items = size, 1, list[_Item]()
        self.seen = 0

    def offer(self, make: Callable[[], _Item]) -> None:
        """One item more, made only if it is kept for now."""
        if self._size and self.seen % self._step == 0:
            self._items.append(make())
            if len(self._items) == 2 * self._size:
                self._items, self._step = self._items[::2], 2 * self._step
        self.seen += 1

    def __len__(self) -> int:
        return len(self._items)

    def take(self, number: int) -> list[_Item]:
        """`number` of those kept, at even distances, in their order."""
        positions = np.linspace(0, len(self._items) - 1, number).round().astype(int)
        return [self._items[position] for position in positions]


class PictureChoice:
    """Tiles for a grid: wrong predictions, then right ones, unknown ones, unreadable ones.

    Each group is shown by images at even distances of all it has; a group that needs less
    than its share of the places leaves them to the others.

    Args:
        places: tiles of the grid.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._groups = [EvenSample[Tile](places) for _ in range(4)]

    def note(self, found: FoundImage, *, prediction: Prediction, label: str | None) -> None:
        """One prediction more, and what the image shows if that is known."""
        group = _group_of(prediction, label=label)
        self._groups[group].offer(lambda: _tile(found, prediction=prediction, label=label))

    def tiles(self) -> list[Tile]:
        """Those to be drawn."""
        numbers = _shares([len(group) for group in self._groups], places=self._places)
        pairs = zip(self._groups, numbers, strict=True)
        return [tile for group, number in pairs for tile in group.take(number)]

    def title(self) -> str:
        """What the grid shows, and of how many."""
        wrong, right, unknown, unreadable = (group.seen for group in self._groups)
        counts = {"wrong": wrong, "right": right, "unlabelled": unknown, "unreadable": unreadable}
        said = ", ".join(f"{number:,} {word}" for word, number in counts.items() if number)
        total, shown = sum(counts.values()), len(self.tiles())
        of_what = ", actual → predicted" if wrong or right else ""
        return f"{total:,} images{of_what}: {said}" + (f" ({shown} shown)" if shown < total else "")


def _group_of(prediction: Prediction, *, label: str | None) -> int:
    if prediction.error:
        return _UNREADABLE
    if label is None:
        return _UNKNOWN
    return _RIGHT if prediction.class_name == label else _WRONG


def _shares(available: Sequence[int], *, places: int) -> list[int]:
    given = [0] * len(available)
    for group in cycle(_TURNS):
        if sum(given) == min(places, sum(available)):
            return given
        given[group] += given[group] < available[group]
    raise AssertionError  # cycle never ends


def _tile(found: FoundImage, *, prediction: Prediction, label: str | None) -> Tile:
    note = PurePosixPath(found.source).name
    if prediction.error or found.content is None:
        message = drawable(prediction.error or "nothing there", length=_ERROR_LENGTH)
        return Tile(message, colour=GREY, note=note)
    return Tile.of(
        thumbnail(found.content),
        actual=label,
        predicted=str(prediction.class_name),
        probability=prediction.probability or 0.0,
        note=note,
    )
