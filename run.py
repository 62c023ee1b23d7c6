"""Darkroom's command line.

    python run.py --stack local            the main job on the embedded digits
    python run.py --data FOLDER            the same on your own images
    python run.py predict IMAGE            ask the newest model

Exit codes: 0 done, 1 failed, 2 your input has to change.
"""

from pathlib import Path

import click

from stacks.environment import CHECKOUT, prepare_environment

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
STACK = click.option("--stack", type=click.Choice(["local"]), default="local", show_default=True)


@click.group(invoke_without_command=True, epilog="Exit codes: 0 done, 1 failed, 2 your mistake.")
@STACK
@CONFIG
@DATA
@SET
@click.option("--summary", type=click.Path(path_type=Path), help="Write the result as JSON.")
@click.option("--keep-endpoint", is_flag=True, help="Leave the endpoint running.")
@click.option("--no-cache", is_flag=True, help="Reuse nothing of earlier runs.")
@click.pass_context
def cli(context: click.Context, **options: object) -> None:
    """Take labelled images to a tuned, trained, evaluated and deployed classifier.

    Without a command, runs the main job: on embedded handwritten digits, or on --data.
    """
    prepare_environment()
    if context.invoked_subcommand is None:
        from commands.main_job import run_training

        run_training(**options)


@cli.command()
@STACK
@CONFIG
@DATA
@SET
def check(**options: object) -> None:
    """Validate configuration and data source without running anything."""
    from commands.check import check_all

    check_all(**options)


@cli.command()
@click.argument("sources", nargs=-1, required=True, metavar="IMAGE|FOLDER|URL…")
@click.option("--model", metavar="BUNDLE", help="Bundle folder or archive.  [default: newest]")
@click.option("--top-k", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="A list of JSON objects, not a table.")
def predict(**options: object) -> None:
    """Classify images with a model."""
    from commands.predict import predict_images

    predict_images(**options)


@cli.command()
@click.argument("model", required=False)
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True)
def serve(**options: object) -> None:
    """Serve MODEL (default: the newest) on loopback until interrupted."""
    from commands.serve import serve_model

    serve_model(**options)


@cli.command()
@click.option("--port", type=click.IntRange(0, 65535), default=5000, show_default=True)
def ui(**options: object) -> None:
    """Open MLflow's user interface on the runs so far; the address is printed."""
    from commands.ui import serve_ui

    serve_ui(**options)


if __name__ == "__main__":
    from commands.exits import run_and_exit

    run_and_exit(cli)
