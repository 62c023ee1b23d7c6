"""Runs of this machine that are killed, and runs at once: on photographs as a phone makes them.

One workspace goes through it all by the front door, for a run takes many seconds.
"""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pillow_heif
import pytest
from PIL import Image

from checkout import CHECKOUT
from kill_rehearsed import Command
from pictures import write_image_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ZENML = "zenml/local_stores/default_zen_store/zenml.db"
RUN = CHECKOUT / "run.py"
CONFIG = """
data: {validation_fraction: 0.2, test_fraction: 0.2}
model: {architecture: squeezenet1_1, weights: none, image_size: 32, resize_size: 32}
training: {warmup_epochs: 0, augmentation: none}
tuning:
  trials: 2
  search_space: {batch_size: {choices: [4]}, epochs: {low: 3, high: 3}, weight_decay: null}
tracking: {system_metrics: false}
deployment: {enabled: false}
evaluation: {bootstrap_samples: 100, grid_images: 6}
"""


@dataclass(frozen=True)
class Place:
    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def start(self, *arguments: str) -> Command:
        log = self.folder / f"command-{time.monotonic_ns()}.log"
        own = {"DARKROOM_HOME": str(self.home), "HOME": str(self.folder / "user")}
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, str(RUN), *arguments],
                cwd=self.folder,
                env={**os.environ, **own, "COLUMNS": "400"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        return Command(process, log=log)

    def train(self, name: str) -> Command:
        summary = str(self.folder / f"{name}.json")
        return self.start("--config", "tiny.yaml", "--data", "images", "--summary", summary)

    def summary(self, name: str) -> dict:
        return json.loads((self.folder / f"{name}.json").read_text())

    def killed_when_it_says(self, text: str) -> tuple[str, str]:
        """The name of a run that is killed then, and what it told until then."""
        command = self.train("killed")
        command.says(text)
        command.process.send_signal(signal.SIGKILL)
        command.ends()
        return name_of(command), command.said

    def rows(self, database: str, query: str) -> list[tuple[str, str]]:
        with closing(sqlite3.connect(self.home / database)) as connection:
            return connection.execute(query).fetchall()


def name_of(command: Command) -> str:
    """Of its run."""
    return re.findall(r"^Run (\S+) on stack local$", command.said, flags=re.MULTILINE)[0]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    write_image_folder(tmp_path / "images", per_class=10)
    pillow_heif.register_heif_opener()
    for picture in sorted((tmp_path / "images").rglob("*.png")):
        with Image.open(picture) as image:
            image.save(picture.with_suffix(".heic"), quality=90)
        picture.unlink()
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    return Place(tmp_path)


def test_the_same_command_after_a_kill_goes_on_and_of_two_at_once_one_waits(place: Place) -> None:
    in_search, _ = place.killed_when_it_says("trial 1, epoch 1:")
    in_training, told = place.killed_when_it_says("nothing is left to train: 3 epochs")
    assert f"Run {in_search} did not come to its end: its process (" in told
    assert "trial 0, epoch" not in told

    one, other = place.train("one"), place.train("other")
    for command in (one, other):
        command.says(" on stack local")
    pruning = place.start("prune", "--yes")
    assert pruning.ends() == 2, pruning.said
    assert "nothing is removed while others work in" in pruning.said
    assert [one.ends(), other.ends()] == [0, 0], one.said + other.said

    patient = [c for c in (one, other) if "works on the same: waiting for it to end" in c.said]
    assert len(patient) == 1
    worked = next(c for c in (one, other) if c not in patient)
    assert f"Run {in_training} did not come to its end: its process (" in worked.said
    assert not re.search(r"trial \d", worked.said)
    summaries = {name_of(c): place.summary(n) for n, c in (("one", one), ("other", other))}
    by_work, by_patience = summaries[name_of(worked)], summaries[name_of(patient[0])]
    assert {"ingest_images", "validate_dataset", "tune_hyperparameters"} <= reused(by_work)
    assert "register_model" not in reused(by_work)
    assert reused(by_patience) == set(by_patience["timings"]["components"])
    assert by_work["data"]["counts"]["train"] == {"blue": 6, "green": 6, "red": 6}
    assert by_work["data"]["left_out"] == {}

    killed = {in_search, in_training}
    states = dict(place.rows(ZENML, "SELECT name, status FROM pipeline_run"))
    assert states == dict.fromkeys(killed, "failed") | dict.fromkeys(summaries, "completed")
    steps = {status for _, status in place.rows(ZENML, "SELECT name, status FROM step_run")}
    assert steps == {"cached", "completed", "failed"}
    records = place.rows("artifacts/mlflow.db", "SELECT name, status FROM runs")
    assert {status for _, status in records} == {"FAILED", "FINISHED"}
    assert {name: dict(records)[name] for name in killed} == dict.fromkeys(killed, "FAILED")
    assert {name: dict(records)[name] for name in summaries} == dict.fromkeys(summaries, "FINISHED")
    listed = place.start("runs", "--json")
    assert listed.ends() == 0
    assert {run["name"]: run["state"] for run in json.loads(listed.said)} == {
        **dict.fromkeys(killed, "interrupted"),
        **dict.fromkeys(summaries, "trained"),
    }
    assert not list((place.home / "locks").glob("use-*"))


def reused(summary: dict) -> set[str]:
    return set(summary["timings"]["reused"])
