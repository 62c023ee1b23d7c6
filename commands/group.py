"""The command line's root: options before a command count, and mistyped names are answered."""

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from darkroom.errors import UserError

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
        from difflib import get_close_matches

        known = self.list_commands(ctx)
        close = get_close_matches(name.casefold(), known, n=1)
        if hint := _MEANT.get(name.casefold()):
            return f"there is no command {name!r}: {hint}"
        if close:
            return f"there is no command {name!r}: did you mean {close[0]!r}?"
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
