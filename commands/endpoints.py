"""`python run.py endpoints`: what serves, on AWS with what it costs."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
from rich.text import Text

from commands.tables import age, print_rows
from commands.where import ready
from darkroom.backends.sagemaker.cleanup import list_endpoints as find_endpoints
from darkroom.backends.sagemaker.session import Clients
from darkroom.base.errors import UserError

if TYPE_CHECKING:
    from darkroom.backends.sagemaker.cleanup import EndpointRow


_HEADINGS = (
    *("endpoint", "status", "kind", "instances", "per hour", "age", "expires", "run"),
    "model version",
)


def list_endpoints(*, stack: str, as_json: bool) -> None:
    """Print a table, or a list of JSON objects.

    Raises:
        UserError: values of the stack are missing, or AWS refuses.
    """
    if stack == "local":
        from commands.local_endpoints import list_local

        list_local(as_json=as_json)
        return
    with account(stack) as clients:
        rows = find_endpoints(clients=clients, region=str(clients.region))
    if as_json:
        click.echo(json.dumps([row.model_dump(mode="json") for row in rows], indent=1))
    elif rows:
        print_rows(_HEADINGS, [_row(row) for row in rows])
    else:
        click.echo("No endpoints of Darkroom's.")


@contextmanager
def account(stack: str) -> Iterator[Clients]:
    """Clients of a stack's account while the block runs.

    Raises:
        UserError: values of the stack are missing, or no rehearsal is up.
    """
    if stack == "rehearsal":
        from rehearsal.session import find_kept

        if find_kept() is None:
            raise UserError(
                "no stand-in for AWS is up: each rehearsal starts one of its own and ends it. "
                "`python -m rehearsal` keeps one up that this command can look at."
            )
    with ready(stack):
        yield Clients(os.environ["AWS_REGION"])


def cost_of(row: "EndpointRow") -> str:
    """What an endpoint costs by the hour, for people."""
    if row.kind == "serverless":
        return "by request" if row.cost_per_hour == 0 else "by request, and what is kept warm"
    return f"${row.cost_per_hour:.3f}" if row.cost_per_hour is not None else "unknown"


def _row(row: "EndpointRow") -> tuple[str | Text, ...]:
    instances = f"{row.instance_type} × {row.instances or '?'}" if row.instance_type else "–"
    expires = row.expires.isoformat(timespec="minutes") if row.expires else "never"
    return (
        row.name,
        row.status,
        row.kind,
        instances,
        cost_of(row),
        age(row.created),
        Text(expires, style="red" if row.has_expired else ""),
        row.run,
        ", ".join(row.models) or row.model_version,
    )
