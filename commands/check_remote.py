"""What `python run.py check` looks at beyond this machine: the account, duration and cost."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from darkroom.base.errors import UserError
from darkroom.config import Config

if TYPE_CHECKING:
    from darkroom.backends.sagemaker.account.preflight import Finding
    from darkroom.backends.storage.ingestion import SourceDescription

_BUILT_REPOSITORY = "zenml"
"""Where ZenML pushes the image that it builds."""
_MARKS = {"ok": "✓", "note": "!", "problem": "✗"}


def check_remote(
    settings: Config, *, stack: str, source: "SourceDescription | None", refresh_prices: bool
) -> list[str]:
    """Print what the account looks like and what a run would take.

    Args:
        source: what is known of the data; None: they are unusable.

    Returns:
        The problems, each with what to do.
    """
    if stack == "rehearsal":
        from rehearsal.session import REGION

        click.echo("Account        none: the run starts a stand-in for AWS on this machine")
        for line in _show_estimate(settings, source=source, region=REGION):
            click.echo(f"  {_MARKS['note']} {line}")  # of AWS; the stand-in has this machine's
        return []
    problems = _account_problems(settings)
    region = os.environ.get("AWS_REGION", "")
    if refresh_prices and region:
        problems += _refresh(region)
    return problems + _show_estimate(settings, source=source, region=region)


def _account_problems(settings: Config) -> list[str]:
    from darkroom.backends.sagemaker.account.preflight import check_account
    from darkroom.backends.sagemaker.session import Clients
    from darkroom.backends.sagemaker.session import context_of_environment as site_of_environment
    from stacks.values import load_values

    try:
        addresses = load_values("sagemaker")
        site = site_of_environment(settings.sagemaker)
    except UserError as error:
        return error.problems
    built = f"{os.environ['DARKROOM_ECR_REGISTRY']}/{_BUILT_REPOSITORY}"
    findings = check_account(
        replace(site, image=site.image or built),
        config=settings,
        zenml_url=addresses.zenml,
        mlflow_uri=addresses.mlflow,
        clients=Clients(site.region),
    )
    _show_findings(findings)
    return [f"{f.subject}: {f.text}" for f in findings if f.level == "problem"]


def _show_findings(findings: Sequence["Finding"]) -> None:
    """All of them; what is wrong is said once, in the error at the end."""
    click.echo("Account")
    for finding in findings:
        text = "see below" if finding.level == "problem" else finding.text
        click.echo(f"  {_MARKS[finding.level]} {finding.subject}: {text}")


def _refresh(region: str) -> list[str]:
    """Fetch the region's prices; returns what went wrong."""
    from darkroom.backends.sagemaker.costs.prices import refresh_prices, refreshed_path
    from darkroom.backends.sagemaker.session import Clients, aws_errors_explained
    from darkroom.base.errors import DarkroomError

    try:
        with aws_errors_explained("the AWS price list"):
            refresh_prices(refreshed_path(), region=region, client=Clients(region).pricing)
    except DarkroomError as error:
        return [str(error)]
    click.echo(f"Prices         of {region} written to {refreshed_path()}")
    return []


def _show_estimate(
    settings: Config, *, source: "SourceDescription | None", region: str
) -> list[str]:
    """Print what a run would take; returns the limits that it would go beyond."""
    from darkroom.backends.sagemaker.costs.estimate import (
        estimate_lines,
        estimate_run,
        limit_notes,
        limit_problems,
    )
    from darkroom.backends.sagemaker.costs.throughput import DataSize

    data = DataSize.of(images=source.images, size=source.size) if source else None
    estimate = estimate_run(settings, data=data, region=region)
    click.echo(f"Estimate for {region or 'an unknown region'}")
    for line in estimate_lines(estimate):
        click.echo(f"  {line}")
    for line in limit_notes(estimate):
        click.echo(f"  {_MARKS['note']} {line}")
    return limit_problems(estimate)
