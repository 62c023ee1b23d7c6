"""How figures look, and those of training and tuning.

Drawn without matplotlib's global state: each function returns a `matplotlib.figure.Figure`,
`png` turns it into bytes.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, Protocol

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager, get_font
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

BLUE, ORANGE, GREY = "#1f5fbf", "#d9730d", "#7a828e"
GREEN, RED = "#17702f", "#b3261e"

_NAME_LENGTH = 28
_OWN_FAMILY = "DejaVu Sans"
_OTHER_FONTS = (
    *("Noto Sans CJK", "Noto Serif CJK", "Source Han Sans", "WenQuanYi", "Droid Sans Fallback"),
    *("Hiragino Sans", "PingFang", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic"),
    *("Noto Sans", "Arial Unicode", "Noto Emoji", "Symbola", "FreeSerif", "Unifont"),
)
"""Families with the scripts of East Asia, and with signs; coloured emoji cannot be drawn."""
_TUNING_COLUMNS = 3
_MAX_TICKS = 5
_TRIAL_STYLES: Mapping[str, Mapping[str, Any]] = {
    "complete": {"color": BLUE, "marker": "o"},
    "pruned": {"color": GREY, "marker": "x"},
    "failed": {"color": RED, "marker": "x"},
}

Value = int | float | str
Layout = Literal["constrained", "compressed"]


class Epoch(Protocol):
    """What the training figure needs to know of an epoch."""

    @property
    def epoch(self) -> int: ...
    @property
    def train_loss(self) -> float: ...
    @property
    def validation(self) -> Mapping[str, float]: ...


class Trial(Protocol):
    """What the tuning figure needs to know of a trial."""

    @property
    def number(self) -> int: ...
    @property
    def values(self) -> Mapping[str, Value]: ...
    @property
    def objective(self) -> float | None: ...
    @property
    def state(self) -> str: ...


class Trials(Protocol):
    """What the tuning figure needs to know of a search."""

    @property
    def objective(self) -> str: ...
    @property
    def trials(self) -> Sequence[Trial]: ...
    @property
    def best(self) -> Mapping[str, Value]: ...
    @property
    def best_value(self) -> float: ...


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def training_figure(
    history: Sequence[Epoch], *, best_epoch: int, metric: str = "f1_macro"
) -> Figure:
    """Losses and a validation metric by epoch, the best epoch marked."""
    figure = new_figure(width=9.0, height=3.6)
    left, right = figure.subplots(1, 2)
    epochs = [epoch.epoch for epoch in history]
    style = {"marker": "o", "markersize": 3.5, "linewidth": 1.5}
    left.plot(epochs, [epoch.train_loss for epoch in history], color=GREY, label="train", **style)
    losses = [epoch.validation.get("log_loss", np.nan) for epoch in history]
    left.plot(epochs, losses, color=BLUE, label="validation", **style)
    left.set_title("Loss")
    left.set_ylim(bottom=0)
    left.legend(frameon=False, fontsize=8)
    values = [epoch.validation.get(metric, np.nan) for epoch in history]
    right.plot(epochs, values, color=BLUE, **style)
    right.set_title(f"Validation {_words(metric)}")
    for axes in (left, right):
        axes.axvline(best_epoch, color=ORANGE, linestyle="--", linewidth=1.5, zorder=1.5)
        axes.set_xlabel("Epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.plot(
        [], [], color=ORANGE, linestyle="--", linewidth=1.5, label=f"best: epoch {best_epoch}"
    )
    right.legend(frameon=False, fontsize=8)
    clean(left, right)
    return figure


def tuning_figure(result: Trials) -> Figure:
    """The objective by trial, and against each hyperparameter that was searched.

    Pruned and failed trials are crosses, at the bottom where they have no objective.
    """
    names = sorted({name for trial in result.trials for name in trial.values})
    columns = min(_TUNING_COLUMNS, 1 + len(names))
    rows = -(-(1 + len(names)) // columns)
    figure = new_figure(width=3.2 * columns, height=3.1 * rows)
    first, *others = figure.subplots(rows, columns, squeeze=False).flat
    _plot_trials(first, result, at=lambda trial: trial.number)
    first.set_xlabel("Trial")
    first.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(*first.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    for axes, name in zip(others, names, strict=False):
        _plot_trials(axes, result, at=partial(_tried, name=name))
        _scale(axes, [trial.values[name] for trial in result.trials if name in trial.values])
        axes.set_xlabel(_words(name))
    for axes in others[len(names) :]:
        axes.set_axis_off()
    for row in range(rows):
        figure.axes[row * columns].set_ylabel(_words(result.objective))
    clean(*figure.axes[: 1 + len(names)])
    return figure


def drawable(text: str, *, length: int = _NAME_LENGTH) -> str:
    """The text shortened in its middle, with \\u… for what no installed font can draw.

    Long names often differ at their end alone, and boxes would look all the same.
    """
    letters = [letter if _can_be_drawn(letter) else _escaped(letter) for letter in text]
    if sum(map(len, letters)) <= length:
        return "".join(letters)
    half = (length - 1) // 2
    return f"{_as_many(letters, length - 1 - half)}…{_as_many(letters[::-1], half, reverse=True)}"


def _as_many(letters: Sequence[str], length: int, *, reverse: bool = False) -> str:
    """The first whole letters that fit."""
    kept: list[str] = []
    for letter in letters:
        if sum(map(len, kept)) + len(letter) > length:
            break
        kept.append(letter)
    return "".join(reversed(kept) if reverse else kept)


def _plot_trials(axes: Axes, result: Trials, *, at: Callable[[Trial], Value | None]) -> None:
    known = [trial.objective for trial in result.trials if trial.objective is not None]
    bottom = min(known, default=0.0)
    points = [
        (x, bottom if trial.objective is None else trial.objective, trial.state)
        for trial in result.trials
        if (x := at(trial)) is not None
    ]
    for state, style in _TRIAL_STYLES.items():
        shown = [(x, y) for x, y, this_state in points if this_state == state]
        if shown:
            axes.scatter(*zip(*shown, strict=True), **style, label=state)
    best = [(x, y) for x, y, _ in points if y == result.best_value]
    if best:
        axes.scatter(*best[0], color=ORANGE, s=70, label="best", zorder=3)


def _tried(trial: Trial, *, name: str) -> Value | None:
    return trial.values.get(name)


def _scale(axes: Axes, values: Sequence[Value]) -> None:
    """Logarithmic beyond a factor of ten; few whole numbers are each a tick."""
    numbers = sorted({value for value in values if not isinstance(value, str)})
    if numbers and numbers[0] > 0 and numbers[-1] > 10 * numbers[0]:
        axes.set_xscale("log")
    elif len(numbers) <= _MAX_TICKS and all(isinstance(value, int) for value in numbers):
        axes.set_xticks(numbers)


def _can_be_drawn(letter: str) -> bool:
    if letter.isspace() or not letter.isprintable():
        return letter == " "
    code = ord(letter)
    return code in _characters(_own_font()) or any(
        code in _characters(file) for file in _other_fonts().values()
    )


def _escaped(letter: str) -> str:
    code = ord(letter)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:x}"


def _own_font() -> str:
    return str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")


@cache
def _characters(file: str) -> frozenset[int]:
    return frozenset(get_font(file).get_charmap())


@cache
def _other_fonts() -> dict[str, str]:
    """Fonts of this machine that have what matplotlib's own has not, by family: their files."""
    found: dict[str, str] = {}
    for wanted in _OTHER_FONTS:
        for font in fontManager.ttflist:
            if font.name.startswith(wanted) and font.name not in found and font.weight == 400:
                found[font.name] = font.fname
                break
    return found


class _Figure(Figure):
    """Draws each letter by the first font that has it."""

    def draw(self, renderer: RendererBase) -> None:
        for text in self.findobj(Text):
            if not text.get_text().isascii():
                text.set_fontfamily([_OWN_FAMILY, *_other_fonts()])
        super().draw(renderer)


def new_figure(
    *, width: float, height: float, layout: Layout = "constrained", dots_per_inch: int = 144
) -> Figure:
    """An empty figure whose texts find a font for every letter, to be drawn without a display.

    Args:
        width, height: in inches.
        layout: matplotlib's engine: 'constrained', or 'compressed' for axes of a fixed aspect.
        dots_per_inch: width times this is the number of pixels across.
    """
    figure = _Figure(figsize=(width, height), dpi=dots_per_inch, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def clean(*all_axes: Axes) -> None:
    """Leave only the lines that help to read the axes."""
    for axes in all_axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(visible=True, color="#e6e8eb", linewidth=0.8)
        axes.set_axisbelow(True)


def _words(metric: str) -> str:
    return metric.replace("_", " ").replace("f1", "F1")
