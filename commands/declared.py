"""The command line: every command with its options, imported only when it is used."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from darkroom.base.errors import UserError

# --- late imports ---
# Commands are imported when they are used, so that `--help` and mistakes answer at once.


def call(target: str, options: Mapping[str, object]) -> None:
    """Call a function, named as 'module:function', with the command line's options."""
    module, function = target.split(":")
    getattr(import_module(module), function)(**options)


# --- group ---
# The command line's root: options before a command count, and mistyped names are answered.

_MAIN_JOB = (
    "training is what run.py does without a command: `python run.py --data FOLDER`, "
    "or `python run.py` for the embedded digits"
)
_MEANT = {
    **dict.fromkeys(("train", "fit", "run", "tune", "evaluate", "start"), _MAIN_JOB),
    **dict.fromkeys(("classify", "infer", "inference"), "did you mean 'predict'?"),
    **dict.fromkeys(("validate", "doctor", "preflight", "dry-run"), "did you mean 'check'?"),
    **dict.fromkeys(("mlflow", "dashboard"), "did you mean 'ui'?"),
    **dict.fromkeys(("delete", "remove", "undeploy", "stop"), "did you mean 'down'?"),
    **dict.fromkeys(("list", "ls", "status"), "did you mean 'endpoints'?"),
    "diff": "did you mean 'compare'?",
    "version": "did you mean '--version'?",
}
"""What people write who come from other tools."""


class Inherited(click.Option):
    """An option that may stand before the command as well as after it.

    What is given after it wins, as the later one does everywhere; repeatable ones add up.
    """

    def consume_value(
        self,
        ctx: click.Context,
        opts: Any,  # noqa: ANN401 - as click declares it
    ) -> tuple[Any, ParameterSource]:
        """The value given here, else the one given before the command."""
        value, source = super().consume_value(ctx, opts)
        above = _given(ctx.parent).get(str(self.name)) if ctx.parent else None
        if above is None:
            return value, source
        if self.multiple:
            here = value if source is ParameterSource.COMMANDLINE else ()
            return (*above, *here), ParameterSource.COMMANDLINE
        if source is ParameterSource.COMMANDLINE:
            return value, source
        return above, ParameterSource.COMMANDLINE


class Commands(click.Group):
    """A group that applies or refuses each option before a command, and knows near misses."""

    def invoke(self, ctx: click.Context) -> object:
        """Refuse what the command would have ignored, then go on."""
        names = ctx._protected_args
        command = self.get_command(ctx, names[0]) if names else None
        if command is not None:
            _refuse_ignored(ctx, command=command)
        return super().invoke(ctx)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; an unknown one is answered with what may have been meant."""
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            raise UserError(self._unknown(args[0], ctx=ctx))
        return super().resolve_command(ctx, args)

    def _unknown(self, name: str, *, ctx: click.Context) -> str:
        # Imported here: `--help` does without the configuration's schema.
        from darkroom.base.values import near_miss

        known = self.list_commands(ctx)
        close = near_miss(name, among=known)
        if hint := _MEANT.get(name.casefold()):
            return f"there is no command {name!r}: {hint}"
        if close:
            return f"there is no command {name!r}: did you mean {close!r}?"
        if Path(name).expanduser().exists() or "://" in name:
            return (
                f"there is no command {name!r}: to train on it, `python run.py --data {name}`; "
                f"to classify it, `python run.py predict {name}`"
            )
        return f"there is no command {name!r}; there are {', '.join(known)}"


def _given(ctx: click.Context | None) -> dict[str, Any]:
    """What stands on the command line itself, by the parameter's name."""
    if ctx is None:
        return {}
    return {
        name: value
        for name, value in ctx.params.items()
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }


def _refuse_ignored(ctx: click.Context, *, command: click.Command) -> None:
    taken = {parameter.name for parameter in command.params if isinstance(parameter, Inherited)}
    names = {parameter.name: parameter.opts[0] for parameter in ctx.command.params}
    problems = [
        f"{names[name]} does nothing for `{command.name}`{_instead(name, command=command)}"
        for name in _given(ctx)
        if name not in taken
    ]
    if problems:
        raise UserError(problems)


def _instead(name: str, *, command: click.Command) -> str:
    """What the command has in the place of an option of the main job."""
    if name == "data" and any(
        parameter.name in ("source", "sources") for parameter in command.params
    ):
        return f": name the images after it, `python run.py {command.name} SOURCE`"
    own = [parameter for parameter in command.params if parameter.name == name]
    if own:  # the same word with another meaning
        return f" there; after it, {own[0].opts[0]} has a meaning of its own"
    offered = [
        parameter.opts[0] for parameter in command.params if isinstance(parameter, click.Option)
    ]
    return f", which takes {', '.join(offered)}"


# --- options ---
# Options that several commands of run.py share.

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


# --- declared ---


@click.command()
@STACK
@CONFIG
@DATA
@SET
@click.option("--refresh-prices", is_flag=True, help="Fetch AWS's price list first.")
def check(**options: object) -> None:
    """Validate configuration, data and account; start nothing."""
    call("commands.check:check_all", options)


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="IMAGE|FOLDER|ARCHIVE|URL|-…")
@MODEL
@click.option("--endpoint", metavar="NAME", help="Ask an endpoint: its name, or a local address.")
@STACK
@click.option("--target-model", metavar="NAME", help="Which model, if the endpoint has several.")
@click.option("--zip-encoding", metavar="NAME", help="Of a zip's old names, such as cp932.")
@click.option("--top-k", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="A list of JSON objects, not a table.")
@click.option("--csv", "as_csv", is_flag=True, help="CSV, not a table.")
@click.option("--all-rows", is_flag=True, help="A table of all rows, however many.")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="All rows as .json or .csv."
)
@click.option(
    "--grid", type=click.Path(path_type=Path), metavar="FILE.png", help="A picture of some of them."
)
@click.option("--grid-images", type=click.IntRange(1, 240), default=24, show_default=True)
def predict(**options: object) -> None:
    """Classify images with a model."""
    call("commands.predict:predict_images", options)


@click.command(epilog="The rest is set by DARKROOM_SERVE_… variables; see docs/serving.md.")
@click.argument("model", required=False, metavar="[MODEL]")
@click.option("--models", metavar="FOLDER", help="All bundles of a folder instead.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True)
@click.option("--engine", help="onnxruntime, openvino or torch.  [default: the bundle's]")
@click.option("--workers", help="Images answered at once.  [default: the cores]")
@click.option("--memory-limit-mb", help="For all of --models together.  [default: 60 %]")
@click.option("--allow-urls", is_flag=True, default=None, help="Fetch images from public URLs.")
@click.option("--url-hosts", metavar="HOST,…", help="From these hosts alone.")
@click.option("--capture", metavar="PLACE", help="Store requests in a folder or s3:// prefix.")
@click.option("--capture-percent", help="Share of them.  [default: 100]")
def serve(**options: object) -> None:
    """Serve MODEL (default: the newest) on loopback; Ctrl-C ends it."""
    call("commands.serve:serve_model", options)


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL | NAME=MODEL…]")
@click.option("--name", metavar="ENDPOINT", help="Of the endpoint.  [default: the model's]")
@STACK
@MODEL_CONFIG
@SET
@click.option(
    "--check",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Images to compare its answers with this machine's.  [default: the bundle's picture]",
)
def deploy(**options: object) -> None:
    """Deploy one bundle (default: the newest) or several."""
    call("commands.deploy:deploy_models", options)


@click.command("compile")
@click.argument("model", required=False, metavar="[MODEL]")
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Photographs on which the engines have to agree.  [default: generated pictures]",
)
@click.option("--out", type=click.Path(path_type=Path), help="Write the compiled bundle there.")
@MODEL_CONFIG
@SET
def compile_(**options: object) -> None:
    """Measure which engine runs MODEL best here (default: newest)."""
    call("commands.compile:compile_bundle", options)


@click.command()
@STACK
@click.option("--json", "as_json", is_flag=True, help="A list of JSON objects, not a table.")
def endpoints(**options: object) -> None:
    """List the endpoints, and what they cost."""
    call("commands.endpoints:list_endpoints", options)


@click.command()
@STACK
@click.argument("name", required=False)
@click.option("--model", metavar="MODEL", help="Only one of its several models.")
@click.option("--run", help="Everything that a run has left.")
@click.option("--all", "everything", is_flag=True, help="Everything of Darkroom's.")
@click.option("--expired", is_flag=True, help="Endpoints whose time to live is over.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def down(**options: object) -> None:
    """Remove the endpoint NAME, or what runs have left on AWS."""
    call("commands.down:remove", options)


@click.command()
@STACK
@click.option("--port", type=click.IntRange(0, 65535), default=5000, show_default=True)
def ui(**options: object) -> None:
    """Serve MLflow's user interface on the runs so far."""
    call("commands.ui:serve_ui", options)


@click.command()
@click.argument("source", required=False, metavar="[FOLDER|ARCHIVE|URL|s3://…]")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    multiple=True,
    required=True,
    metavar="FILE",
    help="Table to write, .parquet or .csv; twice for both.",
)
@MODEL
@STACK
@click.option(
    "--split",
    type=click.Choice(["train", "validation", "test", "all"]),
    default="all",
    show_default=True,
    help="Of a source, the folder of that name; without one, that of the run's data.",
)
@click.option("--top-k", type=click.IntRange(1, 5), default=5, show_default=True)
@MODEL_CONFIG
@SET
@click.option("--no-resume", is_flag=True, help="Use nothing of an interrupted batch.")
def batch(**options: object) -> None:
    """Classify a source (default: the model's own data) into a table."""
    call("commands.batch:run_batch", options)


@click.command()
@click.argument("before", metavar="RUN")
@click.argument("after", metavar="RUN")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Page to write.")
def compare(**options: object) -> None:
    """Compare two trainings: settings, metrics, findings, time.

    RUN is a run's name in .darkroom/runs, or the folder of a recording.
    """
    call("commands.compare:compare_runs", options)


@click.command()
@click.option("--sort", metavar="METRIC", help="The best by a test metric first, such as f1_macro.")
@click.option("--json", "as_json", is_flag=True, help="A list of JSON objects, not a table.")
def runs(**options: object) -> None:
    """List the runs, the newest first, with what came of them."""
    call("commands.runs:list_runs", options)


@click.command()
@click.argument("names", nargs=-1, metavar="[RUN…]")
@click.option("--keep", type=click.IntRange(min=0), metavar="N", help="Runs beside the N newest.")
@click.option("--yes", is_flag=True, help="Remove it; without, it is only told.")
def prune(**options: object) -> None:
    """Tell what RUNs and caches take, and remove what no run needs.

    A run whose model an endpoint serves stays; so does one that `latest` or an alias of the model
    registry points at, unless it is named. While others work here, nothing is removed.
    """
    call("commands.prune:prune", options)


COMMANDS = (
    batch,
    check,
    predict,
    serve,
    compile_,
    compare,
    deploy,
    endpoints,
    down,
    runs,
    prune,
    ui,
)
