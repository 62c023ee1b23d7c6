"""The command line from outside, as a process; what needs no run of the pipeline."""

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from command_line import CHECKOUT, OPTIONS, run
from commands.exits import explained
from run import cli


@pytest.mark.parametrize("command", OPTIONS)
def test_help_names_every_option(command: str) -> None:
    result = CliRunner().invoke(cli, [*command.split(), "--help"])
    shown = {word.strip(",.") for word in result.stdout.split() if word.startswith("--")}
    assert result.exit_code == 0
    assert shown - {"--help"} == OPTIONS[command]


def test_the_list_of_commands_cuts_no_sentence_and_names_every_exit_code() -> None:
    shown = CliRunner().invoke(cli, ["--help"]).stdout
    assert "..." not in shown.partition("Commands:")[2]
    assert "130 interrupted" in shown


def test_help_takes_less_than_half_a_second_of_processor_time() -> None:
    times = []
    for _ in range(3):
        before = os.times()
        run("--help")
        after = os.times()
        used = after.children_user + after.children_system
        times.append(used - before.children_user - before.children_system)
    assert 0 < min(times) < 0.5


def test_run_py_stays_short() -> None:
    assert len((CHECKOUT / "run.py").read_text().splitlines()) <= 100


MISTAKES = {
    "--set training.learning_rate=abc": "'abc'",
    "--set model.architecture=resnet19": "did you mean 'resnet18'",
    "--set training.epocs=3": "did you mean 'epochs'",
    "--set novalue": "novalue",
    "--config absent.yaml": "absent.yaml",
    "--data /absent/folder": "/absent/folder",
    "--summary /absent/folder/x.json": "/absent/folder/x.json",
    "--set model.weights=/absent.safetensors": "/absent.safetensors",
    "--nonsense": "--nonsense",
    "nonsense": "nonsense",
    "predict x.png --model /absent": "/absent",
    "predict x.png": "no model yet",
    "serve": "no model yet",
    "ui": "no runs yet",
}
"""Command lines, and what is said of them."""
IN_A_PROCESS = ("--set training.learning_rate=abc", "--nonsense", "predict x.png")


@pytest.mark.parametrize("line", MISTAKES)
def test_a_users_mistake_is_told(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    error = CliRunner().invoke(cli, line.split(), standalone_mode=False).exception
    told = error if isinstance(error, click.ClickException) else explained(error or Exception())
    assert told is not None
    assert told.exit_code == 2
    assert MISTAKES[line] in str(told)


@pytest.mark.parametrize("line", IN_A_PROCESS)
def test_a_users_mistake_is_one_message_and_exit_code_2(line: str, tmp_path: Path) -> None:
    result = run(*line.split(), cwd=tmp_path)
    assert MISTAKES[line] in result.stderr
    assert "Traceback" not in result.stderr
    assert result.returncode == 2


def test_all_mistakes_in_a_configuration_are_reported_at_once() -> None:
    result = run(
        "check", "--set", "training.learning_rate=abc", "--set", "model.architecture=resnet19"
    )
    assert result.returncode == 2
    assert "training.learning_rate" in result.stderr
    assert "model.architecture" in result.stderr


@pytest.mark.slow
def test_check_says_what_would_run_and_leaves_no_store_behind(image_folder) -> None:
    result = run("check", "--data", str(image_folder()))
    assert result.returncode == 0, result.stderr
    assert "Ready to run" in result.stdout
    assert not (Path(os.environ["DARKROOM_HOME"]) / "zenml").exists()


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["--data", "EMPTY"], ["check", "--data", "EMPTY"]])
def test_an_empty_folder_is_refused(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = run(*[a.replace("EMPTY", str(tmp_path / "empty")) for a in arguments])
    assert result.returncode == 2
    assert "empty" in result.stderr


def test_a_folder_with_one_class_is_refused(image_folder) -> None:
    result = run("--data", str(image_folder(classes=("only",))))
    assert result.returncode == 2
    assert "only" in result.stderr


def test_an_interruption_is_not_lost_in_an_objects_end() -> None:
    script = """
import time
import click
from commands.exits import run_and_exit

class Ending:
    def __del__(self):
        raise KeyboardInterrupt

@click.group(invoke_without_command=True)
def cli():
    Ending()
    for _ in range(100):
        time.sleep(0.1)

run_and_exit(cli)
"""
    result = run_script(script)
    assert result.returncode == 130
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_an_interruption_that_a_library_swallows_comes_again() -> None:
    script = """
import contextlib, os, signal, time
import click
from commands.exits import run_and_exit

@click.group(invoke_without_command=True)
def cli():
    for _ in range(2):  # as some do while they try what can be imported
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except:
            pass
    time.sleep(10)

run_and_exit(cli)
"""
    result = run_script(script)
    assert result.returncode == 130
    assert "Traceback" not in result.stderr


def test_an_interruption_before_anything_has_begun_ends_at_once(tmp_path: Path) -> None:
    imported = "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(60)"
    (tmp_path / "click.py").write_text(imported)
    ended = subprocess.run(
        [sys.executable, str(CHECKOUT / "run.py")],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        timeout=50,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, b"", b"")


def test_an_interruption_in_another_errors_words_is_one() -> None:
    script = """
import os, signal
import click
from commands.exits import run_and_exit

@click.group(invoke_without_command=True)
def cli():
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException as error:  # as some do while they are imported
        raise ImportError("this library is broken") from error

run_and_exit(cli)
"""
    result = run_script(script)
    assert result.returncode == 130
    assert "Traceback" not in result.stderr


def test_a_clean_up_that_takes_long_is_not_interrupted_again() -> None:
    script = """
import contextlib, os, signal, time
import click
from commands.exits import run_and_exit

@contextlib.contextmanager
def server():
    try:
        yield
    finally:
        time.sleep(0.7)
        print("stopped", flush=True)

@click.group(invoke_without_command=True)
def cli():
    with server():
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        finally:
            time.sleep(0.7)
            print("saved", flush=True)

run_and_exit(cli)
"""
    result = run_script(script)
    assert (result.returncode, result.stdout) == (130, "saved\nstopped\n")


def test_an_interruption_that_left_something_broken_ends_orderly_all_the_same() -> None:
    script = """
import atexit, os, sys
import click
from commands.exits import run_and_exit

class HalfImported:
    def __del__(self):
        os.abort()

@click.group(invoke_without_command=True)
def cli():
    sys.half_imported = HalfImported()
    atexit.register(print, "cleaned up")
    raise KeyboardInterrupt

run_and_exit(cli)
"""
    result = run_script(script)
    assert (result.returncode, result.stdout) == (130, "cleaned up\n")


FAILS = """
import click
from commands.exits import run_and_exit

@click.group(invoke_without_command=True)
def cli():
    {}

run_and_exit(cli)
"""


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("open('/dev/full', 'wb', buffering=0).write(b'x')", 1, "a disk is full"),
        ("raise OSError(28, 'No space left', '/proc/x')", 1, "the file system of '/proc'"),
        ("bytearray(1 << 62)", 1, "training.batch_size"),
        ("open('x' * 300)", 2, "xxx…' is no path that can be used: File name too long"),
        ("raise PermissionError(13, 'Denied', '/root/x')", 2, "'/root/x' is not allowed to you"),
        (
            "import os; raise PermissionError(13, 'Denied', os.environ['DARKROOM_HOME'] + '/x')",
            2,
            "Darkroom's own folder",
        ),
        (
            "try: 1 / 0\n    except Exception as error: raise LookupError from MemoryError()",
            1,
            "training.batch_size",
        ),
    ],
)
def test_what_the_machine_refuses_is_one_message(line: str, code: int, message: str) -> None:
    result = run_script(FAILS.format(line))
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.returncode == code


def test_a_fault_of_ours_is_a_message_that_names_its_traceback() -> None:
    result = run_script(FAILS.format("{}['a wrong key']"))
    [kept] = (Path(os.environ["DARKROOM_HOME"]) / "errors").iterdir()
    assert result.returncode == 1
    assert result.stderr.startswith("Error: this is a fault of Darkroom")
    assert str(kept) in result.stderr
    assert "Traceback" not in result.stderr
    assert "KeyError: 'a wrong key'" in kept.read_text()


@pytest.mark.parametrize("has_click", [False, True])
def test_outside_its_environment_it_says_how_to_get_in(
    has_click: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if has_click:  # as in many a Python of the system
        (tmp_path / "click").symlink_to(Path(click.__file__).parent)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    result = subprocess.run(
        [sys.executable, "-S", str(CHECKOUT / "run.py"), "runs"],
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )
    assert "source .venv/bin/activate" in result.stderr
    assert "make setup" in result.stderr
    assert "fault of Darkroom" not in result.stderr
    assert "Traceback" not in result.stderr
    assert result.returncode == 2


@pytest.mark.parametrize("place", ["/dev/null/x", "/proc/x"])
def test_a_workspace_that_cannot_be_made(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_HOME", place)
    result = run("runs")
    assert f"{place!r}" in result.stderr
    assert "DARKROOM_HOME" in result.stderr
    assert "Traceback" not in result.stderr
    assert result.returncode == 2


def run_script(script: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
        timeout=15,
        check=False,
    )
