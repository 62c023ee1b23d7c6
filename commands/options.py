"""Options that several commands of run.py share."""

from pathlib import Path

import click

from commands.group import Inherited

CONFIG = click.option(
    "--config",
    cls=Inherited,
    type=click.Path(path_type=Path),
    help="YAML to run; see configs/.  [default: the digits', or made for the data]",
)
MODEL_CONFIG = click.option(
    "--config",
    cls=Inherited,
    type=click.Path(path_type=Path),
    help="YAML to go by.  [default: that of the model's own run]",
)
MODEL = click.option(
    "--model",
    metavar="MODEL",
    help="Bundle folder or archive, run, or models:/NAME/VERSION.  [default: newest run's]",
)
DATA = click.option(
    "--data",
    cls=Inherited,
    metavar="SOURCE",
    help="Folder, archive, URL or S3 prefix of images.",
)
SET = click.option(
    "--set",
    "overrides",
    cls=Inherited,
    multiple=True,
    metavar="KEY.PATH=VALUE",
    help="Override one value of the configuration; repeatable.",
)
STACK = click.option(
    "--stack",
    cls=Inherited,
    type=click.Choice(["local", "rehearsal", "sagemaker"]),
    default="local",
    show_default=True,
    help="This machine, SageMaker rehearsed on it, or SageMaker.",
)
FAULT = click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="NAME[:KEY=VALUE,…]",
    help="What goes wrong in a rehearsal; repeatable. See docs/rehearsal.md.",
)
