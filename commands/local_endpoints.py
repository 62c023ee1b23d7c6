"""List and end the endpoints on this machine."""

import json
import sys

import click

from commands.tables import age, print_rows
from darkroom.backends.local.records import KeptEndpoint, end_kept, kept_endpoints, models_of
from darkroom.base.errors import UserError

# --- confirmation ---
# Asking before something is removed.


def confirmed(question: str) -> bool:
    """Whether a person says yes.

    Raises:
        UserError: there is nobody to ask.
    """
    if not sys.stdin.isatty():
        raise UserError("there is nobody to ask whether to go on: add --yes")
    try:
        return click.confirm(question)
    except click.Abort as end:
        if isinstance(end.__context__, EOFError):  # Ctrl-D, which is no interruption
            click.echo()
            return False
        raise


# --- local endpoints ---

_LOCAL_HEADINGS = ("endpoint", "address", "process", "age", "run", "model version")


def list_local(*, as_json: bool) -> None:
    """Print a table, or a list of JSON objects."""
    kept = kept_endpoints()
    if as_json:
        click.echo(json.dumps([_public(one) for one in kept], indent=1))
    elif kept:
        print_rows(_LOCAL_HEADINGS, [_local_row(one) for one in kept])
    else:
        click.echo("No endpoints are kept on this machine.")
    if not as_json:
        click.echo("Those on AWS, and what they cost: --stack sagemaker", err=True)


def remove_local(*, name: str, run: str, expired: bool, yes: bool) -> None:
    """Show which endpoints will end, ask, and end them.

    Args:
        name: of one; empty: all, or those of `run`.

    Raises:
        UserError: no such endpoint, or local ones are asked to expire.
    """
    if expired:
        raise UserError("endpoints on this machine have no time to live: name one, or use --all")
    chosen = _choose(name=name, run=run)
    for kept in chosen:
        click.echo(f"end  {kept.name}, {kept.url}, process {kept.pid}")
    if not chosen:
        click.echo("Nothing to remove.")
    elif yes or confirmed(f"End {len(chosen)}?"):
        for kept in chosen:
            end_kept(kept)
        click.echo(f"Ended: {len(chosen)}. The logs stay.")
    else:
        click.echo("Nothing was ended.")


def _choose(*, name: str, run: str) -> list[KeptEndpoint]:
    kept = kept_endpoints()
    chosen = [one for one in kept if name in ("", one.name) and run in ("", one.run)]
    if (name or run) and not chosen:
        wanted = f"endpoint {name!r}" if name else f"endpoint of the run {run!r}"
        raise UserError(
            f"there is no {wanted} on this machine; `run.py endpoints` lists all of it, and "
            "--stack sagemaker looks on AWS"
        )
    return chosen


def _public(kept: KeptEndpoint) -> dict[str, object]:
    return {**kept.model_dump(mode="json", exclude={"token"}), "models": models_of(kept)}


def _local_row(one: KeptEndpoint) -> tuple[str, ...]:
    version = ", ".join(models_of(one)) or one.model_version
    return one.name, one.url, str(one.pid), age(one.started), one.run, version
