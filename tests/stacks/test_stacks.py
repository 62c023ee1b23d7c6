"""The stack loader, in processes of its own: ZenML's client is one a process."""

import json
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from checkout import CHECKOUT
from stacks.stores import discard_half_made_store

pytestmark = pytest.mark.slow  # they make stores


SCRIPT = """
import json, os
from stacks.environment import prepare_environment
prepare_environment()
from stacks.loader import use_stack
first = use_stack("local")
second = use_stack("local")
from zenml.client import Client
active = Client().active_stack_model
chosen = os.environ.pop("ZENML_ACTIVE_STACK_ID")
print(json.dumps({
    "first": str(first), "second": str(second), "chosen": chosen, "active": active.name,
    "components": sorted(kind.value for kind in active.components),
    "users_own": Client().active_stack_model.name,
    "path": active.components[next(k for k in active.components if k.value == "artifact_store")][0]
        .configuration["path"],
    "cwd": os.getcwd(),
}))
"""


def start(home: Path, **environment: str) -> subprocess.Popen[str]:
    variables = {**os.environ, "PYTHONPATH": str(CHECKOUT), "DARKROOM_HOME": str(home)}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=home.parent,
        env={**variables, "HOME": str(home.parent / "user"), **environment},
    )


def result(process: subprocess.Popen[str]) -> dict:
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict:
    return result(start(tmp_path_factory.mktemp("stack") / "home"))


def test_loading_twice_registers_once(loaded: dict) -> None:
    assert loaded["first"] == loaded["second"] == loaded["chosen"]


def test_the_stack_has_orchestrator_artifact_store_and_tracker(loaded: dict) -> None:
    assert loaded["active"] == "darkroom-local"
    assert loaded["components"] == ["artifact_store", "experiment_tracker", "orchestrator"]


def test_the_users_own_active_stack_stays_as_it_was(loaded: dict) -> None:
    assert loaded["users_own"] == "default"


def test_artifacts_lie_in_the_workspace(loaded: dict) -> None:
    assert loaded["path"] == f"{loaded['cwd']}/home/artifacts"


def test_home_and_working_folder_stay_empty(loaded: dict) -> None:
    assert [path.name for path in Path(loaded["cwd"]).iterdir()] == ["home"]


def test_two_processes_may_load_it_first_at_once(tmp_path: Path) -> None:
    processes = [start(tmp_path / "home") for _ in range(3)]
    assert len({result(process)["chosen"] for process in processes}) == 1


@pytest.mark.parametrize("seconds", [0.1, 1.0])
def test_a_store_that_was_killed_while_it_was_made_is_made_anew(
    tmp_path: Path, seconds: float
) -> None:
    home = tmp_path / "home"
    process = start(home)
    database = home / "zenml" / "local_stores" / "default_zen_store" / "zenml.db"
    while not database.exists():
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(seconds)
    process.kill()
    process.communicate()
    assert result(start(home))["active"] == "darkroom-local"


def test_a_store_without_a_stack_of_ours_is_discarded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = write_store(tmp_path, tables="CREATE TABLE stack (name TEXT)", stacks=["default"])
    monkeypatch.setenv("ZENML_CONFIG_PATH", str(store))
    discard_half_made_store(tmp_path)
    assert not store.exists()
    store = write_store(tmp_path, tables="CREATE TABLE alembic (number TEXT)", stacks=[])
    discard_half_made_store(tmp_path)
    assert not store.exists()
    discard_half_made_store(tmp_path)


def test_a_store_that_holds_anything_or_lies_elsewhere_is_let_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = "CREATE TABLE stack (name TEXT)"
    store = write_store(tmp_path, tables=table, stacks=["default", "darkroom-local"])
    monkeypatch.setenv("ZENML_CONFIG_PATH", str(store))
    discard_half_made_store(tmp_path)
    assert store.exists()
    database = next(store.rglob("zenml.db"))
    database.write_bytes(b"no database at all, but who knows whose")
    discard_half_made_store(tmp_path)
    assert store.exists()
    database.unlink()
    monkeypatch.setenv("ZENML_CONFIG_PATH", str(tmp_path / "elsewhere"))
    discard_half_made_store(tmp_path)
    assert store.exists()


def write_store(workspace: Path, *, tables: str, stacks: list[str]) -> Path:
    store = workspace / "zenml"
    folder = store / "local_stores" / "default_zen_store"
    folder.mkdir(parents=True)
    with closing(sqlite3.connect(folder / "zenml.db")) as connection:
        connection.execute(tables)
        for name in stacks:
            connection.execute("INSERT INTO stack VALUES (?)", (name,))
        connection.commit()
    return store


def test_a_variable_that_the_stack_needs_is_named_where_it_is_missing(tmp_path: Path) -> None:
    from darkroom.base.errors import UserError
    from stacks.loader import read_stack

    file = tmp_path / "s.yaml"
    file.write_text(
        "stack_name: x\ncomponents:\n  artifact_store:\n"
        "    - {name: x, flavor: s3, configuration: {path: 's3://${NO_SUCH_BUCKET}'}}\n"
    )
    with pytest.raises(UserError, match="NO_SUCH_BUCKET"):
        read_stack(file)
