"""Darkroom's command line.

    python run.py --stack local            the main job on the embedded digits
    python run.py --data FOLDER            the same on your own images
    python run.py predict IMAGE            ask the newest model

Exit codes: 0 done, 1 failed, 2 your input has to change.
"""

from pathlib import Path

import click

from commands.lazily import call
from commands.options import CONFIG, DATA, FAULT, REMOTE_STACK, SET, STACK
from stacks.environment import prepare_environment


@click.group(invoke_without_command=True, epilog="Exit codes: 0 done, 1 failed, 2 your mistake.")
@STACK
@CONFIG
@DATA
@SET
@click.option("--summary", type=click.Path(path_type=Path), help="Write the result as JSON.")
@click.option("--keep-endpoint", is_flag=True, help="Leave the endpoint running.")
@click.option("--no-cache", is_flag=True, help="Reuse nothing of earlier runs.")
@FAULT
@click.pass_context
def cli(context: click.Context, **options: object) -> None:
    """Take labelled images to a tuned, trained, evaluated and deployed classifier.

    Without a command, runs the main job: on embedded handwritten digits, or on --data.
    """
    prepare_environment()
    if context.invoked_subcommand is None:
        call("commands.main_job:run_training", options)


@cli.command()
@STACK
@CONFIG
@DATA
@SET
@click.option("--refresh-prices", is_flag=True, help="Fetch AWS's price list first.")
def check(**options: object) -> None:
    """Validate configuration, data source and account without running anything."""
    call("commands.check:check_all", options)


@cli.command()
@click.argument("sources", nargs=-1, required=True, metavar="IMAGE|FOLDER|URL…")
@click.option("--model", metavar="BUNDLE", help="Bundle folder or archive.  [default: newest]")
@click.option("--top-k", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="A list of JSON objects, not a table.")
def predict(**options: object) -> None:
    """Classify images with a model."""
    call("commands.predict:predict_images", options)


@cli.command()
@click.argument("model", required=False)
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True)
def serve(**options: object) -> None:
    """Serve MODEL (default: the newest) on loopback until interrupted."""
    call("commands.serve:serve_model", options)


@cli.command()
@REMOTE_STACK
@click.option("--json", "as_json", is_flag=True, help="A list of JSON objects, not a table.")
def endpoints(**options: object) -> None:
    """List the endpoints on AWS, and what they cost."""
    call("commands.endpoints:list_endpoints", options)


@cli.command()
@REMOTE_STACK
@click.argument("name", required=False)
@click.option("--run", help="Everything that a run has left.")
@click.option("--all", "everything", is_flag=True, help="Everything of Darkroom's.")
@click.option("--expired", is_flag=True, help="Endpoints whose time to live is over.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def down(**options: object) -> None:
    """Remove the endpoint NAME, or what runs have left, on AWS."""
    call("commands.down:remove", options)


@cli.command()
@STACK
@click.option("--port", type=click.IntRange(0, 65535), default=5000, show_default=True)
def ui(**options: object) -> None:
    """Open MLflow's user interface on the runs so far; the address is printed."""
    call("commands.ui:serve_ui", options)


if __name__ == "__main__":
    from commands.exits import run_and_exit

    run_and_exit(cli)
