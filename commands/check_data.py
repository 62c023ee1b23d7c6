"""The data set of `run.py check`: how it is read, classes by split, what is left out."""

import unicodedata
from collections.abc import Sequence

import click

from darkroom.backends.ingestion import SourceDescription, describe_source
from darkroom.config import Config
from darkroom.dataset import SPLITS, Dataset
from darkroom.errors import UserError
from darkroom.validation import check_classes, left_out

_CLASSES_SHOWN = 30
_WIDEST_NAME = 40
_EXAMPLES_SHOWN = 2


def check_data(settings: Config) -> tuple[SourceDescription | None, list[str]]:
    """Show the data set; returns what is known of its source, and what is wrong with it.

    What a run would stop for after it has read the images is foreseen, as far as the names of
    the files say.
    """
    try:
        source = describe_source(
            settings.data.source, config=settings.data, seed=settings.training.seed
        )
    except UserError as error:
        click.echo("Data           unusable, see below")
        return None, error.problems
    click.echo(f"Data           {source.line}")
    return source, _show(source.dataset, settings=settings) if source.dataset else []


def _show(dataset: Dataset, *, settings: Config) -> list[str]:
    problems: list[str] = []
    if dataset.provenance.reading:
        click.echo(f"  read as      {_printable(dataset.provenance.reading)}")
    for line in _table(dataset):
        click.echo(f"  {line}")
    for one in left_out(dataset):
        such = _printable(", ".join(one.examples[:_EXAMPLES_SHOWN]))
        click.echo(f"  left out     {one.count:,} × {one.reason}" + (f": {such}" if such else ""))
    for finding in check_classes(dataset, config=settings.data):
        if finding.action == "stop":
            problems.append(f"{finding.message}. {finding.advice}")
        elif finding.kind == "files_left_out":  # what, is said above
            click.echo(f"  warning      {finding.advice}")
        else:
            click.echo(f"  warning      {_printable(finding.message)}. {finding.advice}")
    return problems


def _table(dataset: Dataset) -> list[str]:
    """Images by class and split, as they will be."""
    counts = dataset.counts()
    names = dataset.classes[:_CLASSES_SHOWN]
    rows: list[Sequence[str]] = [("class", *SPLITS)]
    rows += [(_shortened(name), *(f"{counts[s][name]:,}" for s in SPLITS)) for name in names]
    if rest := dataset.classes[_CLASSES_SHOWN:]:
        more = (f"{sum(counts[split][name] for name in rest):,}" for split in SPLITS)
        rows.append((f"and {len(rest):,} more", *more))
    rows.append(("all", *(f"{sum(counts[split].values()):,}" for split in SPLITS)))
    width = max(_width(row[0]) for row in rows)
    return [
        row[0] + " " * (width - _width(row[0])) + "".join(f"{cell:>12}" for cell in row[1:])
        for row in rows
    ]


def _shortened(name: str) -> str:
    """A class name in one line of the terminal; spaces at its ends are seen."""
    printable = _printable(name)
    shown = repr(printable) if printable != printable.strip() else printable
    while _width(shown) > _WIDEST_NAME:
        shown = shown.rstrip("…")[:-1] + "…"
    return shown


def _printable(text: str) -> str:
    """Without what a terminal would obey: names of files may hold anything."""
    return "".join(c if c.isprintable() else "�" for c in text)


def _width(text: str) -> int:
    """Columns of the terminal."""
    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )
