"""Tables of things with names; where the terminal is too narrow, a paragraph for each."""

from collections.abc import Sequence
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

# --- tables ---

_WIDER_THAN_ANY = 10_000


def print_rows(
    headings: Sequence[str], rows: Sequence[Sequence[str | Text]], *, console: Console | None = None
) -> None:
    """Print rows, the first cell of each its name; nothing is cut, folded or left out."""
    console = console or Console()
    table = Table(*headings)
    for row in rows:
        table.add_row(*(_as_text(cell) for cell in row))
    unbounded = console.options.update(width=_WIDER_THAN_ANY)
    if console.measure(table, options=unbounded).maximum <= console.width:
        console.print(table)
        return
    width = max(map(len, headings))
    for name, *others in rows:
        console.print(_as_text(name), style="bold", soft_wrap=True)
        for heading, cell in zip(headings[1:], others, strict=True):
            console.print(Text(f"  {heading:{width}}  ") + _as_text(cell), soft_wrap=True)


def _as_text(cell: str | Text) -> Text:
    """Without rich's markup: names may hold brackets."""
    return cell if isinstance(cell, Text) else Text(cell)


# --- ages ---
# How old something is, for people.


def age(created: datetime | None) -> str:
    """In days, hours or minutes; a dash where nobody knows."""
    if created is None:
        return "–"
    minutes = int((datetime.now(UTC) - created).total_seconds() // 60)
    hours, days = minutes // 60, minutes // (24 * 60)
    return f"{days} d" if days else f"{hours} h" if hours else f"{minutes} min"
