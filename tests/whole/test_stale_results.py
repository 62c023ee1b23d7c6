"""What was kept of an earlier run, and is no longer true, never shapes a later one.

One workspace goes through it all by the front door; each run is looked at from several sides,
for a run takes many seconds.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from checkout import CHECKOUT
from pictures import write_image_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

RUN = CHECKOUT / "run.py"
CONFIG = """
data: {validation_fraction: 0.2, test_fraction: 0.2}
model: {architecture: squeezenet1_1, weights: none, image_size: 32, resize_size: 32}
training: {epochs: 4, batch_size: 4, learning_rate: 1e-3, warmup_epochs: 0, augmentation: none}
tuning: {enabled: false}
tracking: {system_metrics: false}
deployment: {enabled: false}
evaluation: {bootstrap_samples: 100, grid_images: 6}
diagnosis: {live: false, custom: [{function: "mine.py:mine"}]}
"""
RULE = """
from darkroom.debugging.rules.rule import NotApplicableError

def mine(evidence):
    raise NotApplicableError("said by version 1")
"""


@dataclass
class Workplace:
    """A folder with images, a configuration, a rule and a workspace of its own."""

    folder: Path
    home: Path

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        own = {"DARKROOM_HOME": str(self.home), "HOME": str(self.folder / "user")}
        ended = subprocess.run(
            [sys.executable, str(RUN), *arguments],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env={**os.environ, **own, "COLUMNS": "400"},
            timeout=600,
            check=False,
        )
        assert "Traceback" not in ended.stdout + ended.stderr
        return ended

    def run(self, name: str) -> tuple[dict, str]:
        """The summary of a run that succeeds, and what it told."""
        summary = self.folder / f"{name}.json"
        ended = self.command(
            *("--config", "tiny.yaml", "--data", "images", "--summary", str(summary))
        )
        assert ended.returncode == 0, ended.stderr
        return json.loads(summary.read_text()), ended.stderr

    def change_one_byte(self, pattern: str, *, after: bytes) -> None:
        """In place, in all stored files of a kind: every name of a file has it then."""
        files = list((self.home / "artifacts").glob(pattern))
        assert files
        for file in files:
            content = bytearray(file.read_bytes())
            content[content.index(after) + len(after)] ^= 1
            file.write_bytes(content)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    folder = tmp_path_factory.mktemp("workplace")
    write_image_folder(folder / "images", classes=("blue", "green", "red"), per_class=20)
    shutil.copy(folder / "images" / "red" / "0000.png", folder / "red.png")
    (folder / "tiny.yaml").write_text(CONFIG)
    (folder / "mine.py").write_text(RULE)
    return Workplace(folder, folder / "home")


@pytest.fixture(scope="module")
def first(workplace: Workplace) -> dict:
    return workplace.run("first")[0]


def swap_labels(images: Path) -> None:
    for old, new in (("red", "aside"), ("blue", "red"), ("aside", "blue")):
        (images / old).rename(images / new)


def said_of_red(workplace: Workplace, model: Path) -> str:
    """What a model calls the pictures that were written as the red ones: the third class."""
    asked = workplace.command("predict", "red.png", "--model", str(model), "--json")
    return str(json.loads(asked.stdout)[0]["class"])


def test_corrected_labels_are_learned(workplace: Workplace, first: dict) -> None:
    images = workplace.folder / "images"
    before = said_of_red(workplace, Path(first["artifacts"]["bundle"]))
    swap_labels(images)
    try:
        second, _ = workplace.run("second")
    finally:
        swap_labels(images)
    assert second["timings"]["reused"] == []
    assert second["data"]["fingerprint"] != first["data"]["fingerprint"]
    assert (before, said_of_red(workplace, Path(second["artifacts"]["bundle"]))) == ("red", "blue")


def test_what_was_damaged_or_edited_is_told_and_computed_anew(
    workplace: Workplace, first: dict
) -> None:
    for pattern, after in {
        "evaluate_model/test_evaluation/*/*/data_v2.json": b'"accuracy": {"value": 0.',
        "validate_dataset/dataset/*/*/manifest.json": b'"classes": ["',
        "train_model/model_bundle/*/*/model.json": b'"classes": [\n  "',
    }.items():
        workplace.change_one_byte(pattern, after=after)
    (workplace.folder / "mine.py").write_text(RULE.replace("version 1", "version 2"))
    again, told = workplace.run("again")
    for component in ("validate_dataset", "train_model", "evaluate_model"):
        assert f"{component}: an earlier result is not reused, it is computed anew" in told
    assert "ingest_images" in again["timings"]["reused"]
    assert "diagnose_training" not in again["timings"]["reused"]
    assert again["data"] == first["data"]
    assert again["metrics"] == first["metrics"]
    run = Path(again["artifacts"]["reports"]["run"]).parent
    assert "said by version 2" in (run / "diagnosis.json").read_text()
    assert said_of_red(workplace, Path(again["artifacts"]["bundle"])) == "red"


def test_a_workspace_that_was_moved_shows_and_asks_its_models(
    workplace: Workplace, first: dict
) -> None:
    moved = Workplace(workplace.folder, workplace.folder / "moved")
    workplace.home.rename(moved.home)
    shown = moved.command("runs")
    assert shown.returncode == 0
    assert first["run"]["name"] in shown.stdout
    asked = moved.command("predict", "red.png", "--json")
    assert asked.returncode == 0
    assert json.loads(asked.stdout)[0]["class"] == "red"
    assert not workplace.home.exists()
