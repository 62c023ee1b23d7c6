"""What lies in a run's folder when the run has ended."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from commands.outcome import _write_folder
from darkroom.config import Config
from darkroom.telemetry.findings import Diagnosis


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """A recording that went on after an attempt which had failed."""
    folder = tmp_path / "recorded"
    (folder / "tensors").mkdir(parents=True)
    (folder / "recording.json").write_text("{}")
    (folder / "training.html").write_text("of the attempt that failed")
    return folder


def found(tmp_path: Path, *, recording: Path | None, diagnosis: Diagnosis | None) -> Any:
    (bundle := tmp_path / "bundle").mkdir()
    (bundle / "model.json").write_text("{}")
    return SimpleNamespace(
        bundle=SimpleNamespace(folder=bundle),
        diagnosis=diagnosis,
        load=lambda *_: SimpleNamespace(folder=recording),
    )


SUMMARY: Any = SimpleNamespace(model_dump_json=lambda **_: "{}")
PAGES = {"evaluation": "<header>", "run": "<header>"}


def write(run: Path, *, found: Any) -> None:
    _write_folder(run, pages=PAGES, found=found, summary=SUMMARY, config=Config())


@pytest.mark.parametrize("diagnosis", [Diagnosis(findings=(), rules=()), None])
def test_a_recording_is_kept_whether_or_not_it_was_judged(
    diagnosis: Diagnosis | None, recording: Path, tmp_path: Path
) -> None:
    run = tmp_path / "runs" / "a-run"
    write(run, found=found(tmp_path, recording=recording, diagnosis=diagnosis))
    assert (run / "recording" / "recording.json").is_file()
    assert (run / "recording" / "tensors").is_dir()
    assert not (run / "recording" / "training.html").exists()
    assert (run / "diagnosis.json").is_file() == (diagnosis is not None)
    assert (run.parent / "latest" / "summary.json").is_file()


def test_each_report_leads_back_to_the_overview(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "a-run"
    write(run, found=found(tmp_path, recording=None, diagnosis=None))
    assert '<a href="run.html">' in (run / "evaluation.html").read_text()
    assert "<a" not in (run / "run.html").read_text()


def test_a_training_that_was_not_recorded_leaves_no_recording(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "a-run"
    write(run, found=found(tmp_path, recording=None, diagnosis=None))
    assert sorted(path.name for path in run.iterdir()) == [
        "config.yaml",
        "evaluation.html",
        "model",
        "run.html",
        "summary.json",
    ]
