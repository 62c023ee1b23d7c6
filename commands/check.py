"""`python run.py check`: everything that can be known before a run."""

import unicodedata
from collections.abc import Sequence
from pathlib import Path

import click

from commands.settings import settings_to_train
from darkroom.backends.storage.ingestion import SourceDescription, describe_source
from darkroom.base.errors import UserError
from darkroom.config import Config
from darkroom.config.consistency import ineffective_settings, managed_problems
from darkroom.config.loader import ConfigurationError
from darkroom.config.sections import SPLITS
from darkroom.config.tuning import trials_wanted
from darkroom.data.dataset import Dataset
from darkroom.debugging.diagnosis import diagnosis_problems, moved_rule_problems
from darkroom.validation import check_classes, left_out
from stacks.environment import CHECKOUT

# --- check data ---
# The data set of `run.py check`: how it is read, classes by split, what is left out.

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


# --- check ---


def check_all(
    *,
    stack: str,
    config: Path | None,
    data: str | None,
    overrides: Sequence[str],
    refresh_prices: bool = False,
) -> None:
    """Validate configuration, data source and account, and say what a run would do.

    Args:
        refresh_prices: fetch the region's prices from AWS before the cost is estimated.

    Raises:
        UserError: with all problems that were found.
    """
    if refresh_prices and stack != "sagemaker":
        raise UserError(f"--refresh-prices asks AWS: it needs --stack sagemaker, not {stack!r}")
    try:
        chosen = settings_to_train(config=config, data=data, overrides=overrides, stack=stack)
    except ConfigurationError as error:
        further = diagnosis_problems(error.readable.diagnosis) if error.readable else []
        raise UserError([*error.problems, *further]) from error
    settings = chosen.config
    click.echo(f"Configuration  {chosen.origin}: valid")
    for line in chosen.told:
        click.echo(line)
    source, problems = check_data(settings)
    problems += diagnosis_problems(settings.diagnosis)
    _describe(settings, stack=stack, chosen=chosen.chosen)
    problems += _foresee(settings, source=source, stack=stack)
    if stack != "local":
        from commands.check_remote import check_remote

        problems += managed_problems(settings)
        problems += moved_rule_problems(settings.diagnosis, checkout=CHECKOUT)
        problems += check_remote(
            settings, stack=stack, source=source, refresh_prices=refresh_prices
        )
    if problems:
        raise UserError(problems)
    click.echo("Ready to run.")


def _foresee(settings: Config, *, source: SourceDescription | None, stack: str) -> list[str]:
    from darkroom.training.requirements import foresee  # imports torch

    dataset = source.dataset if source else None
    trained = len(dataset.split("train")) if dataset else None
    seen = foresee(settings, images=source.images if source else None, trained=trained, stack=stack)
    for line in seen.lines:
        click.echo(line)
    return list(seen.problems)


def _describe(settings: Config, *, stack: str, chosen: Config) -> None:
    tuning = settings.tuning
    trials = f"{trials_wanted(tuning)} trials" if tuning.enabled else "no tuning"
    click.echo(
        f"Model          {settings.model.architecture}, weights {settings.model.weights}, "
        f"{settings.model.image_size} px, {trials}"
    )
    click.echo(f"Stack          {stack}")
    for line in ineffective_settings(settings, stack=stack, chosen=chosen):
        click.echo(f"Note           {line}")
