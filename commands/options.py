"""Options that several commands of run.py share."""

from pathlib import Path

import click

from stacks.environment import CHECKOUT

CONFIG = click.option(
    "--config",
    type=click.Path(path_type=Path),
    default=CHECKOUT / "configs" / "digits.yaml",
    help="YAML to run; see configs/.  [default: configs/digits.yaml]",
)
DATA = click.option("--data", metavar="SOURCE", help="Folder, archive, URL or S3 prefix of images.")
SET = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY.PATH=VALUE",
    help="Override one value of the configuration; repeatable.",
)
STACK = click.option(
    "--stack",
    type=click.Choice(["local", "rehearsal", "sagemaker"]),
    default="local",
    show_default=True,
    help="This machine, SageMaker rehearsed on it, or SageMaker.",
)
REMOTE_STACK = click.option(
    "--stack",
    type=click.Choice(["local", "rehearsal", "sagemaker"]),
    default="sagemaker",
    show_default=True,
    help="This machine, the stand-in that `python -m rehearsal` keeps up, or SageMaker.",
)
FAULT = click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="NAME[:KEY=VALUE,…]",
    help="What goes wrong in a rehearsal; repeatable. See docs/rehearsal.md.",
)
