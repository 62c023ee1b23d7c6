"""`python run.py check`: everything that can be known before a run."""

from collections.abc import Sequence
from pathlib import Path

import click

from darkroom.backends.ingestion import describe_source
from darkroom.config.loading import load_config


def check_all(*, stack: str, config: Path, data: str | None, overrides: Sequence[str]) -> None:
    """Validate configuration and data source, and say what a run would do.

    Raises:
        UserError: with all problems that were found.
    """
    settings = load_config(config, overrides=overrides, data=data)
    source = describe_source(settings.data.source, config=settings.data)
    trials = f"{settings.tuning.trials} trials" if settings.tuning.enabled else "no tuning"
    click.echo(f"Configuration  {config}: valid")
    click.echo(f"Data           {source}")
    click.echo(
        f"Model          {settings.model.architecture}, weights {settings.model.weights}, "
        f"{settings.model.image_size} px, {trials}"
    )
    click.echo(f"Stack          {stack}")
    click.echo("Ready to run.")
