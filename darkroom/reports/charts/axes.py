"""The frame of a chart: where it is drawn, its grid, its ticks, its labels."""

from collections.abc import Callable
from dataclasses import dataclass

from markupsafe import Markup

from darkroom.reports.charts.scales import Scale, tick
from darkroom.reports.charts.svg import element, joined

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
    """The rectangle that ticks and labels leave of a picture."""
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
    """Grid lines, their values and what the axes are."""
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
    """A piece of text in the picture; nothing where there is none."""
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
