"""Keep a stand-in for AWS up, until interrupted.

    python -m rehearsal [--image URI=FOLDER] [--fault NAME[:KEY=VALUE,…]]

Runs on the stack 'rehearsal' use it instead of starting their own, so that endpoints stay,
jobs are found again, and `run.py endpoints` and `run.py down` have something to show.
"""

import shlex
import signal
import sys
from argparse import ArgumentTypeError
from pathlib import Path

import click

from darkroom.base.errors import DarkroomError
from rehearsal.emulator.server import image_option
from rehearsal.session import find_kept, kept_up, remove_bulk
from stacks.environment import prepare_environment

_SHOWN = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION")


@click.command()
@click.option(
    "--image",
    "images",
    multiple=True,
    metavar="URI=FOLDER",
    help="FOLDER/bin/train and FOLDER/bin/serve are what a container of this image starts.",
)
@click.option("--fault", "faults", multiple=True, metavar="NAME[:KEY=VALUE,…]")
def main(images: tuple[str, ...], faults: tuple[str, ...]) -> None:
    """Keep a stand-in for AWS up on the loopback, until interrupted."""
    prepare_environment()
    try:
        mapped = [f"{uri}={folder}" for uri, folder in map(image_option, images)]
    except ArgumentTypeError as error:
        raise click.UsageError(f"--image {error}") from error
    if find_kept():
        raise click.ClickException("a stand-in is up already")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _keep(mapped, faults=faults)
    except DarkroomError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)


def _keep(images: list[str], *, faults: tuple[str, ...]) -> None:
    with kept_up(images=images, faults=faults) as running:
        values = running.environment()
        click.echo("A stand-in for AWS is up. For other programs:\n")
        for name in _SHOWN:
            click.echo(f"export {name}={shlex.quote(values[name])}")
        click.echo("\nCtrl-C ends it, and all that runs there.")
        try:
            signal.pause()
        except KeyboardInterrupt:
            click.echo("\nStopping …")
    remove_bulk(Path(running.folder))


if __name__ == "__main__":
    sys.exit(main())
