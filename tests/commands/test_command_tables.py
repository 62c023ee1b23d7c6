"""Tables of things with names, on terminals of every width."""

import io

import pytest
from rich.console import Console

from commands.tables import print_rows

HEADINGS = ("endpoint", "status", "run", "model version")
ROW = ("dogs", "InService", "clothing-small-mobilenet-v2-20261130-130448-8f3f", "0123456789ab")


@pytest.mark.parametrize("width", [40, 80, 120])
def test_nothing_of_a_row_is_cut(width: int) -> None:
    stream = io.StringIO()
    print_rows(HEADINGS, [ROW, ROW], console=Console(file=stream, width=width))
    shown = stream.getvalue()
    assert all(shown.count(cell) == 2 for cell in ROW)
    assert ("┃" in shown) == (width == 120)


def test_brackets_in_a_name_are_no_markup() -> None:
    stream = io.StringIO()
    print_rows(("name", "run"), [("[red]x[/red]", "y")], console=Console(file=stream, width=80))
    assert "[red]x[/red]" in stream.getvalue()
