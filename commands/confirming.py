"""Asking before something is removed."""

import sys

import click

from darkroom.errors import UserError


def confirmed(question: str) -> bool:
    """Whether a person says yes.

    Raises:
        UserError: there is nobody to ask.
    """
    if not sys.stdin.isatty():
        raise UserError("there is nobody to ask whether to go on: add --yes")
    return click.confirm(question)
