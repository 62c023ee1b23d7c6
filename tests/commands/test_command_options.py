"""Options before a command count as those after it do, or are refused; never dropped."""

import itertools

import click
import pytest
from click.testing import CliRunner

from command_line import OPTIONS, run
from commands.declared import COMMANDS
from darkroom.base.errors import UserError
from run import cli

VALUES = {
    "--stack": ["rehearsal"],
    "--config": ["configs/clothing.yaml"],
    "--data": ["my-photos"],
    "--set": ["training.epochs=3"],
    "--summary": ["s.json"],
    "--keep-endpoint": [],
    "--no-cache": [],
    "--fault": ["spot"],
}
NEEDED = {
    "batch": ["--out", "o.csv"],
    "predict": ["x.png"],
    "compare": ["a", "b"],
}


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What a command was called with, in the place of its work."""
    seen: dict[str, object] = {}
    for module in ("commands.declared.call", "run.call"):
        monkeypatch.setattr(module, lambda _target, options: seen.update(options))
    return seen


def invoke(*arguments: str) -> object:
    return CliRunner().invoke(cli, list(arguments), catch_exceptions=False, standalone_mode=False)


def test_the_options_of_the_main_job_are_all_tried() -> None:
    assert set(VALUES) == OPTIONS[""] - {"--version"}


@pytest.mark.parametrize(
    ("command", "option"), list(itertools.product([str(c.name) for c in COMMANDS], VALUES))
)
def test_an_option_before_a_command_does_what_it_does_after_it_or_is_refused(
    command: str, option: str, called: dict[str, object]
) -> None:
    given = [option, *VALUES[option]]
    needed = NEEDED.get(command, [])
    if option not in OPTIONS[command]:
        with pytest.raises(UserError, match=f"{option} does nothing for `{command}`"):
            invoke(*given, command, *needed)
        assert not called
        return
    invoke(*given, command, *needed)
    before = dict(called)
    invoke(command, *needed, *given)
    assert before == called


def test_what_stands_after_the_command_wins_and_repeatable_options_add_up(
    called: dict[str, object],
) -> None:
    invoke("--stack", "rehearsal", "--set", "a=1", "check", "--stack", "local", "--set", "b=2")
    assert called["stack"] == "local"
    assert called["overrides"] == ("a=1", "b=2")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("train", "python run.py --data FOLDER"),
        ("predct", "did you mean 'predict'?"),
        ("endpoint", "did you mean 'endpoints'?"),
        ("tests", "python run.py --data tests"),
        ("zzz", "there are batch, "),
    ],
)
def test_an_unknown_command_is_answered_with_what_may_be_meant(name: str, hint: str) -> None:
    with pytest.raises(UserError) as caught:
        invoke(name)
    assert hint in str(caught.value)
    assert repr(name) in str(caught.value)


def test_a_mistyped_option_is_answered_with_the_near_ones() -> None:
    with pytest.raises(click.NoSuchOption) as caught:
        invoke("check", "--confg", "x")
    assert "--config" in caught.value.format_message()


def test_short_help_and_version_by_the_front_door() -> None:
    shown = [run("-h"), run("predict", "-h"), run("--version")]
    assert [each.returncode for each in shown] == [0, 0, 0]
    assert shown[2].stdout.startswith("darkroom, version ")


@pytest.mark.slow
def test_data_before_check_is_what_is_checked(image_folder) -> None:
    result = run("--data", str(image_folder()), "check", "--set", "model.weights=none")
    assert result.returncode == 0, result.stderr
    assert "images" in result.stdout
    assert "digits" not in result.stdout


def test_what_does_not_exist_is_told_before_anybody_is_asked() -> None:
    result = run("down", "nope")
    assert result.returncode == 2
    assert "there is no endpoint 'nope' on this machine" in result.stderr
    assert "--yes" not in result.stderr


def test_endpoints_looks_where_deploy_deploys() -> None:
    result = run("endpoints")
    assert (result.returncode, result.stdout) == (0, "No endpoints are kept on this machine.\n")
    assert "--stack sagemaker" in result.stderr
