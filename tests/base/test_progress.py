import io
import re

import pytest
from rich.console import Console

from darkroom.base import progress as progress_module
from darkroom.base.progress import PlainProgress, TimeLeft, counted, terminal_progress
from darkroom.base.progress_bar import BarProgress


def test_piped_progress_is_plain_lines_with_what_is_new() -> None:
    stream = io.StringIO()
    with PlainProgress(stream).task("Training", total=4) as task:
        task.advance(1)
        task.advance(1, detail="loss 0.5")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 1
    assert re.fullmatch(r"Training: 2/4(, \d+ s left)?  loss 0.5", lines[0])


def test_messages_are_lines() -> None:
    stream = io.StringIO()
    PlainProgress(stream).message("hello")
    assert stream.getvalue() == "hello\n"


def bars_on(stream: io.StringIO, *, width: int) -> BarProgress:
    progress = BarProgress(stream)
    progress._console = Console(file=stream, width=width, force_terminal=True)
    return progress


def test_bars_nest_and_end_cleanly() -> None:
    stream = io.StringIO()
    progress = bars_on(stream, width=80)
    with progress.task("outer", total=2) as outer:
        with progress.task("inner", total=1) as inner:
            inner.advance(detail="x")
        outer.advance()
    with progress.task("again", total=1) as task:
        task.advance()
        progress._bars.refresh()
    assert "again" in stream.getvalue()


class Clock:
    """A clock that is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_time_left_falls_with_the_clock_between_two_advances() -> None:
    clock = Clock()
    left = TimeLeft(clock=clock)
    clock.now += 9
    left.note(1)  # of four
    shown = []
    for _ in range(5):
        shown.append(left.seconds(4))
        clock.now += 9
    assert shown == [27, 18, 9, 0, 0]


def test_what_was_done_before_does_not_make_the_rest_look_fast() -> None:
    clock = Clock()
    left = TimeLeft(clock=clock)
    left.note(90)  # taken up where it was interrupted
    assert left.seconds(100) is None
    clock.now += 10
    left.note(91)
    assert left.seconds(100) == pytest.approx(90)


def test_the_time_left_goes_by_the_last_minute_not_by_the_first() -> None:
    clock = Clock()
    left = TimeLeft(clock=clock)
    for done in range(1, 11):  # while the cache is built
        clock.now += 30
        left.note(done)
    for done in range(11, 71):
        clock.now += 1
        left.note(done)
    assert left.seconds(100) == pytest.approx(30, abs=2)


def test_bytes_are_a_percentage_and_the_unknown_is_no_fraction() -> None:
    assert counted(3, total=40) == "3/40"
    assert counted(0.1 + 0.2 + 0.7, total=4) == "1/4"
    assert counted(1.5e8, total=6e8) == "25%"
    assert counted(0, total=None) == ""


@pytest.mark.parametrize("width", [40, 80, 120])
def test_a_bar_fits_the_terminal(width: int) -> None:
    stream = io.StringIO()
    bars = bars_on(stream, width=width)
    with bars.task("training job darkroom-clothing-20261130-abcdef", total=1200) as task:
        task.advance(600, detail="epoch=5/8 train_loss=1.112 validation_log_loss=10.05 " * 3)
        bars._bars.refresh()
    lines = (
        re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", stream.getvalue()).replace("\r", "\n").split("\n")
    )
    assert any("600/1,200" in line for line in lines)
    assert max(map(len, lines)) <= width


def test_nothing_is_left_of_a_bar_but_how_long_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("darkroom.base.progress_bar.time.monotonic", clock)
    stream = io.StringIO()
    with BarProgress(stream).task("packing the model"):
        clock.now += 4.4
    assert stream.getvalue().strip().splitlines()[-1] == "packing the model: done in 4.4 s"
    assert "0/?" not in stream.getvalue()


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Dumb(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(progress_module.sys, "__stderr__", Dumb())
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(terminal_progress(), PlainProgress)
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(terminal_progress(), BarProgress)
