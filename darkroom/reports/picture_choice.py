"""Which of any number of predictions a grid shows, chosen while they go by."""

from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import PurePosixPath
from typing import Generic, TypeVar

import numpy as np

from darkroom.inputs.found import FoundImage
from darkroom.prediction import Prediction
from darkroom.reports.figures import GREY, drawable
from darkroom.reports.picture_grid import Tile, thumbnail

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
