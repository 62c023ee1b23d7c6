"""`run.py batch`, as a user gives it."""

import csv
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from checkout import CHECKOUT
from commands.declared import batch
from darkroom.base.errors import UserError
from pictures import write_image_folder
from small_bundles import write_small_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_small_bundle(tmp_path / "bundle")


def run(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(CHECKOUT / "run.py"), "batch", *arguments],
        env={**os.environ, "DARKROOM_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )


def tracked_metrics(home: Path) -> dict[str, float]:
    """What MLflow's store in a workspace holds."""
    with sqlite3.connect(home / "artifacts" / "mlflow.db") as store:
        return dict(store.execute("select key, value from latest_metrics").fetchall())


@pytest.mark.parametrize("stack", ["local", "rehearsal"])
@pytest.mark.slow
def test_tables_and_metrics_are_written_on_each_stack(
    tmp_path: Path, bundle: Path, stack: str
) -> None:
    root, home, out = tmp_path / "images", tmp_path / "home", tmp_path / "rows.csv"
    write_image_folder(root, per_class=2)
    (root / "red" / "broken.png").write_bytes(b"no image")
    done = run(
        *(str(root), "--model", str(bundle), "--out", str(out)),
        *("--out", str(tmp_path / "rows.parquet"), "--stack", stack),
        home=home,
    )
    assert done.returncode == 0, done.stderr
    assert "7 images, 1 unreadable, 2 of 6 labelled right" in done.stdout
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows if row["error"]] == ["red/broken.png"]
    assert len(rows) == 7
    found = json.loads((tmp_path / "rows.metrics.json").read_text())
    assert (found["images"], found["unreadable"], found["correct"]) == (7, 1, 2)
    assert not list((home / "batches").iterdir())
    if stack == "local":
        assert tracked_metrics(home)["accuracy"] == pytest.approx(1 / 3)
        assert tracked_metrics(home)["unreadable"] == 1


@pytest.mark.slow
def test_a_source_of_which_nothing_can_be_read_fails_with_its_table_written(
    tmp_path: Path, bundle: Path
) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"no image")
    out = tmp_path / "rows.csv"
    done = run(
        str(tmp_path / "bad"), "--model", str(bundle), "--out", str(out), home=tmp_path / "home"
    )
    assert done.returncode == 1
    assert "none of the images could be read" in done.stderr
    assert "not an image" in done.stderr
    assert out.is_file()


@pytest.mark.parametrize(
    ("out", "words"), [("rows.json", ".parquet"), ("/absent/rows.csv", "cannot be written")]
)
def test_names_that_cannot_be_written_are_refused_before_the_work(
    tmp_path: Path, bundle: Path, out: str, words: str
) -> None:
    done = run(str(tmp_path), "--model", str(bundle), "--out", out, home=tmp_path / "home")
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("source", "setting"),
    [("images", "data.exclude=cat"), ("images", "data={}"), (None, "model.image_size=64")],
)
def test_settings_without_effect_are_refused(tmp_path, source, setting):
    options = [source] if source else []
    options += ["--out", str(tmp_path / "table.csv"), "--set", setting, "--set", "tracking.tags={}"]
    result = CliRunner().invoke(batch, options)
    assert isinstance(result.exception, UserError)
    assert f"no effect on a batch{' where' if source else ':'}" in str(result.exception)
    assert "tags" not in str(result.exception)
