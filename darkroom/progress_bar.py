"""Progress bars on a terminal, by rich."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress

from darkroom.progress import Task


class _BarTask:
    def __init__(self, bars: RichProgress, task_id: TaskID) -> None:
        self._bars, self._id = bars, task_id

    def advance(self, amount: float = 1, *, detail: str = "") -> None:
        self._bars.advance(self._id, amount)
        if detail:
            self._bars.update(self._id, detail=detail)


class BarProgress:
    """A bar with counts, time passed and time left; nested tasks stack."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream)
        self._bars: RichProgress | None = None

    @contextmanager
    def task(self, description: str, *, total: float | None = None) -> Iterator[Task]:
        outermost = self._bars is None
        bars = self._bars or self._start()
        task_id = bars.add_task(description, total=total, detail="")
        try:
            yield _BarTask(bars, task_id)
        finally:
            if outermost:
                bars.stop()
                self._bars = None
            else:
                bars.remove_task(task_id)

    def message(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)

    def _start(self) -> RichProgress:
        self._bars = RichProgress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}"),
            console=self._console,
        )
        self._bars.start()
        return self._bars
