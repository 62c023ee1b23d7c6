import io

from darkroom.progress import PlainProgress
from darkroom.progress_bar import BarProgress


def test_piped_progress_is_plain_lines_with_what_is_new() -> None:
    stream = io.StringIO()
    with PlainProgress(stream).task("Training", total=4) as task:
        task.advance(1)
        task.advance(1, detail="loss 0.5")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("Training: 2/4, ")
    assert lines[0].endswith("s left  loss 0.5")


def test_messages_are_lines() -> None:
    stream = io.StringIO()
    PlainProgress(stream).message("hello")
    assert stream.getvalue() == "hello\n"


def test_bars_nest_and_end_cleanly() -> None:
    stream = io.StringIO()
    progress = BarProgress(stream)
    with progress.task("outer", total=2) as outer:
        with progress.task("inner", total=1) as inner:
            inner.advance(detail="x")
        outer.advance()
    with progress.task("again", total=1) as task:
        task.advance()
    assert "again" in stream.getvalue()
