"""What a person answers before something is removed."""

import io
import sys

import click
import pytest

from commands.local_endpoints import confirmed
from darkroom.base.errors import UserError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("typed", "answer"), [("y\n", True), ("n\n", False), ("", False)])
def test_yes_is_yes_and_the_end_of_input_is_no(
    typed: str, answer: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    assert confirmed("Go on?") is answer


def test_an_interruption_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(click.termui, "visible_prompt_func", interrupted)
    with pytest.raises(click.Abort):
        confirmed("Go on?")


def test_where_nobody_can_be_asked_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(UserError, match="add --yes"):
        confirmed("Go on?")
