"""`python run.py check`: everything that can be known before a run."""

from collections.abc import Sequence
from pathlib import Path

import click

from commands.check_data import check_data
from commands.settings import settings_to_train
from darkroom.backends.ingestion import SourceDescription
from darkroom.config import Config
from darkroom.config.consistency import managed_problems
from darkroom.config.grid import trials_wanted
from darkroom.config.ineffective import ineffective_settings
from darkroom.config.loading import ConfigurationError
from darkroom.diagnosis.checking import diagnosis_problems, moved_rule_problems
from darkroom.errors import UserError
from stacks.environment import CHECKOUT


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
    from darkroom.training.foresight import foresee  # imports torch

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
