"""Progress bars on a terminal, by rich."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Progress as RichProgress
from rich.progress import Task as RichTask
from rich.table import Column
from rich.text import Text

from darkroom.base.progress import Task, TimeLeft, counted

_NARROW = 60
"""Columns below which a bar has no place."""
_DESCRIPTION_WIDTH = 28
_OTHER_COLUMNS = 26
"""That count and time left take at most."""


class _Bars(RichProgress):
    """One line for each task; what it has to say stands below it, cut to the terminal's width."""

    def get_renderables(self) -> Iterable[RenderableType]:
        for task in self.tasks:
            yield self.make_tasks_table([task])
            if detail := task.fields["detail"]:
                yield Text(f"  {detail}", no_wrap=True, overflow="ellipsis")


class _Counted(ProgressColumn):
    def render(self, task: RichTask) -> Text:
        return Text(counted(task.completed, total=task.total))


class _Left(ProgressColumn):
    def render(self, task: RichTask) -> Text:
        seconds = task.fields["left"].seconds(task.total)
        if seconds is None or task.finished:
            return Text("")
        minutes, seconds = divmod(round(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        shown = f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
        return Text(f"{shown} left")


class _BarTask:
    def __init__(self, bars: RichProgress, task_id: TaskID, *, left: TimeLeft) -> None:
        self._bars, self._id, self._left = bars, task_id, left
        self._done = 0.0

    def advance(self, amount: float = 1, *, detail: str = "") -> None:
        self._done += amount
        self._left.note(self._done)
        self._bars.advance(self._id, amount)
        if detail:
            self._bars.update(self._id, detail=detail)


class BarProgress:
    """A bar with counts, time passed and time left; nested tasks stack.

    A bar that is done gives way to a line that says how long it took.
    """

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream)
        self._bars: RichProgress | None = None

    @contextmanager
    def task(self, description: str, *, total: float | None = None) -> Iterator[Task]:
        outermost, started = self._bars is None, time.monotonic()
        bars, left = self._bars or self._start(), TimeLeft()
        task_id = bars.add_task(description, total=total, detail="", left=left)
        try:
            yield _BarTask(bars, task_id, left=left)
        finally:
            bars.remove_task(task_id)
            if outermost:
                bars.stop()
                self._bars = None
        if outermost and (seconds := time.monotonic() - started) >= 1:
            self.message(f"{description}: done in {seconds:.1f} s")

    def message(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)

    def _start(self) -> RichProgress:
        width = max(8, min(_DESCRIPTION_WIDTH, self._console.width - _OTHER_COLUMNS))
        described = TextColumn(
            "{task.description}",
            markup=False,
            table_column=Column(no_wrap=True, overflow="ellipsis", max_width=width),
        )
        columns: list[ProgressColumn] = [SpinnerColumn(), described]
        if self._console.width >= _NARROW:
            columns += [BarColumn(bar_width=12), _Counted(), TimeElapsedColumn(), _Left()]
        else:
            columns += [_Counted(), _Left()]
        self._bars = _Bars(*columns, console=self._console, transient=True)
        self._bars.start()
        return self._bars
