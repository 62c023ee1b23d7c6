"""A training that makes no more steps is ended where a rule says so, not at its next step."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from darkroom.base.errors import DarkroomError
from darkroom.config.debugging import Debugging, DiagnosisConfig, RecordingConfig, RuleConfig
from darkroom.data.dataset import Dataset
from darkroom.debugging.recording import live
from darkroom.debugging.recording.live import TrainingHangs, watching_for_stalls
from darkroom.telemetry.findings import Finding
from darkroom.training import loop
from darkroom.training.loop import TrainingResult, train
from small_trainings import PlainNetwork, small_hyperparameters, write_dataset

pytestmark = pytest.mark.slow  # they train

_STEPS = 4
"""Before it hangs: one epoch of three, and one more. An epoch has to fit into the seconds after
which it counts as hanging, on a busy machine too."""
FINDING = Finding(
    rule="stalled_training",
    title="The training stood still",
    severity="warning",
    action="fail",
    evidence={},
    meaning="",
    advice=(),
)


def hanging_judge() -> Any:
    return SimpleNamespace(stall_seconds=0.1, hangs=FINDING, look_for_stall=lambda: None)


def wait_for_ever() -> None:
    with watching_for_stalls(hanging_judge()):
        while True:
            threading.Event().wait(0.2)


def in_the_main_thread() -> None:
    with pytest.raises(TrainingHangs) as raised:
        wait_for_ever()
    assert raised.value.finding.rule == "stalled_training"


def in_another_thread() -> None:
    with ThreadPoolExecutor(1) as executor:
        error = executor.submit(wait_for_ever).exception(20)
    assert isinstance(error, TrainingHangs)
    assert error.finding.rule == "stalled_training"


def dropped() -> None:
    """Python drops what is raised in a destructor."""

    class Destroyed:
        def __del__(self) -> None:
            threading.Event().wait(5)

    live.GRACE_SECONDS = 4
    given_up: list[Finding] = []
    with pytest.raises(TrainingHangs):
        destroy(Destroyed, give_up=given_up.append)
    assert given_up == []


def destroy(kind: Callable[[], object], *, give_up: Callable[[Finding], None]) -> None:
    with watching_for_stalls(hanging_judge(), give_up=give_up):
        kind()
        threading.Event().wait(20)


def while_the_watch_is_begun() -> None:
    begin = threading.Thread.start

    def slowly(thread: threading.Thread) -> None:
        begin(thread)
        threading.Event().wait(5)

    threading.Thread.start = slowly
    with pytest.raises(TrainingHangs), watching_for_stalls(hanging_judge()):
        pass
    assert "stall watch" not in [thread.name for thread in threading.enumerate()]


SCENARIOS = (in_the_main_thread, in_another_thread, dropped, while_the_watch_is_begun)


def test_what_waits_is_interrupted() -> None:
    # In a process of its own: it takes a signal of its main thread, as a training does.
    code = "import test_hanging_training as here\nfor each in here.SCENARIOS: print(each); each()"
    ended = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_what_cannot_be_interrupted_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "GRACE_SECONDS", 0.1)
    given_up, told = threading.Event(), []

    def give_up(finding: Finding) -> None:
        told.append(finding)
        given_up.set()

    with watching_for_stalls(hanging_judge(), give_up=give_up):
        while not given_up.is_set():
            try:
                given_up.wait(5)
            except TrainingHangs:
                continue  # as code does that catches everything
    assert told == [FINDING]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_dataset(tmp_path_factory.mktemp("images"))


def hung(
    dataset: Dataset, *, home: Path, action: str, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> TrainingResult:
    """A training whose network waits for ever in a step."""

    class Hanging(PlainNetwork):
        steps = 0

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.steps += self.training
            if self.steps > _STEPS:
                threading.Event().wait()
            return super().forward(images)

    def build(architecture: str, *, seed: int, **_: object) -> nn.Module:
        torch.manual_seed(seed)
        return Hanging()

    monkeypatch.setattr(loop, "build_model", build)
    rule = RuleConfig.model_validate({"action": action, "parameters": {"threshold": seconds}})
    debugging = Debugging(
        recording=RecordingConfig(backend="torch", profiled_steps=0),
        diagnosis=DiagnosisConfig(rules={"stalled_training": rule}),
    )
    return train(
        dataset,
        hyperparameters=small_hyperparameters(),
        folder=home / "run",
        cache=home / "cache",
        debugging=debugging,
    )


@pytest.mark.timeout(240)
def test_a_hung_training_is_stopped_and_its_best_epoch_kept(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = hung(dataset, home=tmp_path, action="stop", seconds=15, monkeypatch=monkeypatch)
    assert result.stopped_by
    assert result.stopped_by.rule == "stalled_training"
    assert [epoch.epoch for epoch in result.history] == [1]
    ended_by = tmp_path / "run" / "recording" / "ended_by.json"
    assert Finding.model_validate_json(ended_by.read_bytes()).rule == "stalled_training"


@pytest.mark.timeout(240)
def test_a_hung_training_fails_where_that_is_the_rules_action(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DarkroomError, match=r"ended by a rule.*stood still"):
        hung(dataset, home=tmp_path, action="fail", seconds=2, monkeypatch=monkeypatch)
