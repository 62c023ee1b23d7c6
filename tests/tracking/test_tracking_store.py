"""MLflow's database is made whole, or not at all."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from checkout import CHECKOUT
from darkroom.tracking.store import make_store


def make(database: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "darkroom.tracking.store", str(database), "artifacts"]
    return subprocess.Popen(command, cwd=CHECKOUT)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.0, 0.3])
def test_one_whose_making_was_killed_is_made_by_the_next(tmp_path: Path, seconds: float) -> None:
    database = tmp_path / "mlflow" / "mlflow.db"
    process = make(database)
    while not list(tmp_path.glob("mlflow/.mlflow.db.*/mlflow.db")):
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(seconds)
    process.kill()
    process.wait()
    assert make(database).wait(60) == 0
    client = MlflowClient(f"sqlite:///{database}")
    assert client.get_experiment(client.create_experiment("new")).name == "new"


def test_one_that_is_there_is_let_be(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    database.write_text("as it was")
    make_store(database, artifacts="artifacts")
    assert database.read_text() == "as it was"


@pytest.mark.slow
def test_of_two_who_make_it_at_once_both_have_it(tmp_path: Path) -> None:
    processes = [make(tmp_path / "mlflow.db") for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert len(MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}").search_experiments()) == 1
