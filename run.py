"""Darkroom's command line.

    python run.py --stack local            the main job on the embedded digits
    python run.py --data FOLDER            the same on your own images
    python run.py predict IMAGE            ask the newest model

Exit codes: 0 done, 1 failed, 2 your input has to change, 130 interrupted.
"""

import os
import signal
import sys
from pathlib import Path

if __name__ == "__main__":  # until `run_and_exit` takes over, nothing is begun that had to end
    signal.signal(signal.SIGINT, lambda *_: os._exit(128 + signal.SIGINT))

try:
    import click
except ModuleNotFoundError as missing:
    from darkroom.base.errors import not_installed

    print(f"Error: {not_installed(missing)}", file=sys.stderr)
    sys.exit(2)

from commands.declared import COMMANDS, CONFIG, DATA, FAULT, SET, STACK, Commands, call
from darkroom import __version__
from stacks.environment import prepare_environment


@click.group(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 failed, 2 your input has to change, 130 interrupted.",
)
@click.version_option(__version__, "--version", prog_name="darkroom")
@STACK
@CONFIG
@DATA
@SET
@click.option("--summary", type=click.Path(path_type=Path), help="Write the result as JSON.")
@click.option("--keep-endpoint", is_flag=True, help="Leave the endpoint running.")
@click.option("--no-cache", is_flag=True, help="Reuse nothing of earlier runs.")
@FAULT
@click.pass_context
def cli(context: click.Context, /, **options: object) -> None:
    """Take labelled images to a tuned, trained, evaluated and deployed classifier.

    Without a command, runs the main job: on embedded handwritten digits, or on --data.
    """
    prepare_environment()
    if context.invoked_subcommand is None:
        call("commands.main_job:run_training", options)


for command in COMMANDS:
    cli.add_command(command)


if __name__ == "__main__":
    from commands.exits import run_and_exit

    run_and_exit(cli)
