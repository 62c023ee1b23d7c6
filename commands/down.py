"""`python run.py down`: remove endpoints, on AWS with what else runs have left there."""

from collections.abc import Mapping, Sequence

import click

from commands.endpoints import account, cost_of
from commands.local_endpoints import confirmed
from darkroom.backends.sagemaker.cleanup import Selection, find, list_endpoints
from darkroom.backends.sagemaker.cleanup import remove as remove_thing
from darkroom.backends.sagemaker.resources import JOBS, Resource
from darkroom.backends.sagemaker.session import Clients
from darkroom.base.errors import DarkroomError, UserError
from darkroom.base.progress import terminal_progress

_STAYS = "Registered models, logs and what lies on S3 stay: they are records."


def remove(
    *,
    stack: str,
    name: str | None,
    run: str | None,
    everything: bool,
    expired: bool,
    yes: bool,
    model: str | None = None,
) -> None:
    """Show what will go, ask, and remove it.

    Args:
        model: one of the several models of the endpoint `name`, which stays with the others.

    Raises:
        UserError: not exactly one choice, no such endpoint or run, or nobody to ask.
        DarkroomError: some things could not be removed; all others are gone.
    """
    selection = Selection(name=name or "", run=run or "", everything=everything, expired=expired)
    _check(selection)
    if model:
        _remove_model(model, selection=selection, stack=stack)
        return
    if stack == "local":
        from commands.local_endpoints import remove_local

        remove_local(name=selection.name, run=selection.run, expired=expired, yes=yes)
        return
    with account(stack) as clients:
        found = find(selection, clients=clients)
        if not found:
            _report_nothing(selection, stack=stack)
            return
        costs = _costs(clients)
        for thing in found:
            click.echo(f"{'stop' if thing.kind in JOBS else 'remove'}  {_line(thing, costs=costs)}")
        if not yes and not confirmed(f"{len(found)} things. Go on?"):
            click.echo("Nothing was removed.")
            return
        _remove_all(found, clients=clients)
    click.echo(f"{len(found)} things removed. {_STAYS}")


def _remove_model(model: str, *, selection: Selection, stack: str) -> None:
    """Without asking: its bundle stays where it came from."""
    if not selection.name:
        raise UserError(f"--model ({model!r}) is one of an endpoint's: give the endpoint's NAME")
    if stack == "local":
        from darkroom.backends.local.records import remove_model as remove_here

        remove_here(model, endpoint=selection.name)
    else:
        from darkroom.backends.sagemaker.hosting.several_models import remove_model

        with account(stack) as clients:
            remove_model(model, endpoint=selection.name, clients=clients)
    click.echo(f"Model {model} of {selection.name} is removed; the others serve.")


def _check(selection: Selection) -> None:
    """All mistakes at once."""
    chosen = {
        f"NAME ({selection.name!r})": selection.name,
        f"--run ({selection.run!r})": selection.run,
        "--all": selection.everything,
        "--expired": selection.expired,
    }
    given = [word for word, value in chosen.items() if value]
    problems = []
    if len(given) > 1:
        problems.append(f"{' and '.join(given)} exclude each other; give one of them")
    if not given:
        problems.append("say what to remove: the NAME of an endpoint, --run, --expired or --all")
    if problems:
        raise UserError(problems)


def _report_nothing(selection: Selection, *, stack: str) -> None:
    listing = f"`run.py endpoints --stack {stack}`"
    if selection.name:
        raise UserError(
            f"there is no endpoint {selection.name!r} of Darkroom's; {listing} lists all"
        )
    if selection.run:
        raise UserError(
            f"the run {selection.run!r} has left nothing here; {listing} shows the runs"
        )
    click.echo("Nothing to remove.")


def _costs(clients: Clients) -> dict[str, str]:
    """What each endpoint costs by the hour."""
    rows = list_endpoints(clients=clients, region=str(clients.region))
    return {row.name: cost_of(row) for row in rows}


def _line(thing: Resource, *, costs: Mapping[str, str]) -> str:
    text = f"{thing.kind} {thing.name}"
    if thing.kind != "endpoint":
        return text
    return f"{text}, cost per hour: {costs.get(thing.name, 'unknown')}"


def _remove_all(things: Sequence[Resource], *, clients: Clients) -> None:
    """Go on where one cannot be removed: the others cost too."""
    problems = []
    progress = terminal_progress()
    for thing in things:
        try:
            remove_thing(thing, clients=clients, progress=progress)
        except DarkroomError as error:
            problems.append(str(error))
    if problems:
        raise DarkroomError("\n".join([*problems, "Run the same command again for these."]))
