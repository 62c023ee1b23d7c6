"""The list of runs, and what could go: folders as runs leave them, without running any."""

import contextlib
import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from checkout import CHECKOUT
from commands.prune import prune
from commands.runs import list_runs
from darkroom.base.errors import UserError
from darkroom.base.files import link_or_copy, workspace
from darkroom.base.locks import forget, killed_in, users_of
from darkroom.runs.summary import FAILURE_FILE
from documented_summary import example
from held_locks import HOLDS
from small_bundles import write_small_bundle


@contextlib.contextmanager
def _another(script: str, path: Path) -> Iterator[subprocess.Popen]:
    """A process that says when it holds what lies at a path, and ends with the block."""
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    )
    with other:
        assert other.stdout
        assert other.stdout.readline() == b"held\n"
        yield other


ONE, TWO, BAD = "digits-one", "digits-two", "digits-bad"
Out = Callable[[], str]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Two runs of one model, a run that failed, and what is left of others."""
    home = workspace()
    bundle = write_small_bundle(home / "bundles" / "x")
    version = json.loads((bundle / "model.json").read_text())["files"]["model.safetensors"][:12]
    bundle = bundle.rename(home / "bundles" / version)
    for number, name in enumerate((ONE, TWO)):
        summary = example()
        summary["run"] |= {"name": name, "started": f"2026-03-0{number + 1}T10:00:00Z"}
        summary["metrics"]["test"]["accuracy"]["value"] = 0.9 - 0.1 * number
        summary["metrics"]["test"]["accuracy"]["interval"] = [0.7, 0.95]
        summary["artifacts"]["registered_model"]["version"] = str(number + 1)
        write(home / "runs" / name / "summary.json", json.dumps(summary))
        (home / "runs" / name / "model").mkdir()
        for file in bundle.iterdir():
            link_or_copy(file, home / "runs" / name / "model" / file.name)
        write(home / "runs" / name / "recording" / "recording.json", name)
    failed = {
        "name": BAD,
        "started": "2026-02-01T10:00:00Z",
        "stack": "local",
        "data": "digits",
        "component": "train_model",
        "kind": "failed",
        "reason": "no memory",
    }
    write(home / "runs" / BAD / FAILURE_FILE, json.dumps(failed))
    (home / "runs" / "latest").symlink_to(TWO)
    write(home / "cache" / ("0" * 32) / "pixels", "p" * 1000)
    write(home / "cache" / "fontlist.json", "{}")
    write(home / "training" / "abc" / "checkpoint.safetensors", "c" * 1000)
    write(home / "data" / "unpacked" / "digest" / "1.png", "u" * 1000)
    write(home / "bundles" / "old" / "model.onnx", "o" * 1000)
    write(home / "recordings" / "left" / "recording.json", "left")
    write(home / "errors" / "20261130-120000-1.txt", "Traceback")
    return home


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def listed(capsys: pytest.CaptureFixture[str], *, sort: str | None = None) -> list[dict]:
    list_runs(as_json=True, sort=sort)
    return json.loads(capsys.readouterr().out)


def test_runs_are_listed_the_newest_first(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = listed(capsys)
    assert [run["name"] for run in runs] == [TWO, ONE, BAD]
    assert [run["state"] for run in runs] == ["deployed", "deployed", "failed"]
    assert runs[2]["reason"] == "no memory"
    assert runs[0]["bytes"] > 1000
    list_runs(as_json=False, sort=None)
    assert "0.8000" in capsys.readouterr().out


def test_names_of_runs_are_whole_on_a_narrow_terminal(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    list_runs(sort=None, as_json=False)
    words = capsys.readouterr().out.split()
    assert {ONE, TWO, BAD} <= set(words)


def test_runs_are_sorted_by_a_metric_and_an_unknown_one_is_refused(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [run["name"] for run in listed(capsys, sort="accuracy")] == [ONE, TWO, BAD]
    with pytest.raises(UserError, match="no run has that test metric; there are accuracy"):
        list_runs(as_json=True, sort="beauty")


def test_without_runs_there_is_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    list_runs(as_json=False, sort=None)
    assert "python run.py" in capsys.readouterr().out


def test_prune_tells_and_removes_nothing_unless_it_is_said(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prune(names=[], keep=None, yes=False)
    told = capsys.readouterr().out
    for kind in ("caches", "checkpoints", "data", "bundles", "recordings", "errors"):
        assert kind in told
    assert "Nothing was removed" in told
    assert (home / "cache" / ("0" * 32)).is_dir()


def test_prune_removes_what_no_run_needs_and_nothing_else(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prune(names=[], keep=None, yes=True)
    gone = ["cache/" + "0" * 32, "training/abc", "data/unpacked/digest", "bundles/old"]
    gone += ["recordings/left", "errors/20261130-120000-1.txt"]
    assert not any((home / path).exists() for path in gone)
    assert (home / "cache" / "fontlist.json").exists()
    assert (home / "runs" / TWO / "model" / "model.onnx").is_file()
    assert len(list((home / "bundles").iterdir())) == 1
    assert [run["name"] for run in _json(capsys)] == [TWO, ONE, BAD]


def _json(capsys: pytest.CaptureFixture[str]) -> list[dict]:
    capsys.readouterr()
    return listed(capsys)


def test_what_latest_or_an_alias_points_at_stays_unless_it_is_named(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "artifacts").mkdir()
    with closing(sqlite3.connect(home / "artifacts" / "mlflow.db")) as connection, connection:
        connection.execute("CREATE TABLE registered_model_aliases (name, version, alias)")
        connection.execute("CREATE TABLE runs (run_uuid, artifact_uri)")
        connection.execute("CREATE TABLE tags (run_uuid, key, value)")
        connection.execute("CREATE TABLE logged_models (source_run_id, artifact_location)")
        connection.execute(
            "INSERT INTO registered_model_aliases VALUES ('digits', '1', 'approved')"
        )
    prune(names=[], keep=0, yes=False)
    told = re.sub(r"[\s│]", "", capsys.readouterr().out)
    assert "`latest`pointsatit" in told
    assert "digits@approvedpointsatit" in told


def test_a_run_under_way_is_listed_as_such_and_not_removed(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = home / "locks" / "use-1-x.lock"
    with _another(HOLDS.replace("other-run", ONE), lock) as other:
        assert {run["name"]: run["state"] for run in listed(capsys)}[ONE] == "deployed"
        with pytest.raises(UserError, match="cannot be removed: it is under way"):
            prune(names=[ONE], keep=None, yes=False)
        told = f"nothing is removed while others work in .*: run {ONE} \\(process {other.pid}\\)"
        with pytest.raises(UserError, match=told):
            prune(names=[], keep=None, yes=True)
        assert (home / "bundles" / "old").exists()
    prune(names=[], keep=None, yes=True)
    assert not (home / "bundles" / "old").exists()


def test_an_unknown_run_is_answered_with_those_there_are(home: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'digits-one'"):
        prune(names=["digits-onf"], keep=None, yes=True)


USES = """
import sys
from pathlib import Path
from darkroom.base.locks import {lock}
with {lock}(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def beside(home: Path) -> Callable[[str], contextlib.AbstractContextManager[subprocess.Popen]]:
    """Another process that works in the workspace, or has it to itself."""

    return lambda lock: _another(USES.format(lock=lock), home)


def command(*arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(CHECKOUT / "run.py"), *arguments],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )


@pytest.mark.slow  # two processes
def test_nothing_is_removed_while_another_process_works(home: Path, beside) -> None:
    with beside("in_use") as other, command("prune", "--yes") as prune:
        told = prune.communicate()[1]
    assert prune.returncode == 2
    assert told.startswith("Error: nothing is removed while others work in")
    assert f"process {other.pid}" in told
    assert (home / "bundles" / "old").is_dir()


@pytest.mark.slow  # two processes
def test_who_begins_to_work_while_something_is_removed_waits_and_says_so(
    home: Path, tmp_path: Path, beside
) -> None:
    (tmp_path / "empty").mkdir()
    with beside("to_itself") as other, command("--data", str(tmp_path / "empty")) as run:
        assert run.stderr
        told = run.stderr.readline()
        assert run.poll() is None
        assert told.startswith(f"process {other.pid} removes what no run needs: waiting")
        other.communicate()
        assert "no images" in run.communicate()[1]
    assert not list((home / "locks").glob("use-*"))


def test_what_is_left_of_a_killed_process_is_told_from_one_that_lives(home: Path, beside) -> None:
    with beside("in_use") as other:
        assert [user.pid for user in users_of(home)] == [other.pid]
        assert killed_in(home) == {}
        other.kill()
    (record,) = killed_in(home)
    assert killed_in(home)[record].pid == other.pid
    assert users_of(home) == []
    forget(record)
    assert killed_in(home) == {}
    assert not list((home / "locks").glob("use-*"))
