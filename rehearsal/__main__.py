"""Keep a stand-in for AWS up, until interrupted.

    python -m rehearsal [--fault NAME[:KEY=VALUE,…]]

Runs on the stack 'rehearsal' use it instead of starting their own, so that endpoints stay,
jobs are found again, and `run.py endpoints` and `run.py down` have something to show.
"""

import shlex
import signal
import sys
from pathlib import Path

import click

from darkroom.errors import DarkroomError
from rehearsal.session import find_kept, kept_up, remove_bulk
from stacks.environment import prepare_environment

_SHOWN = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION")


@click.command()
@click.option("--fault", "faults", multiple=True, metavar="NAME[:KEY=VALUE,…]")
def main(faults: tuple[str, ...]) -> None:
    """Keep a stand-in for AWS up on the loopback, until interrupted."""
    prepare_environment()
    if find_kept():
        raise click.ClickException("a stand-in is up already")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _keep(faults)
    except DarkroomError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)


def _keep(faults: tuple[str, ...]) -> None:
    with kept_up(faults=faults) as running:
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
