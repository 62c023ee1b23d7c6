"""`run.py compare RUN RUN`: runs are found, compared, and what is wrong is said at once."""

import io
import re
from pathlib import Path

import pytest

from commands.compare import compare_runs
from darkroom.base.errors import UserError
from darkroom.telemetry.evidence import Evidence
from training_evidence import healthy, overfitting
from training_findings import diagnosis


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DARKROOM_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "140")
    return tmp_path


def recorded(home: Path, name: str, *, judged: bool = True) -> Path:
    """A run's folder as far as the command looks at it; its recording is read by a stand-in."""
    folder = home / "runs" / name
    (folder / "recording").mkdir(parents=True)
    (folder / "recording" / "recording.json").write_text("{}")
    if judged:
        (folder / "diagnosis.json").write_text(diagnosis().model_dump_json())
    return folder


def read(folder: Path) -> Evidence:
    return healthy() if folder.parent.name.startswith("new") else overfitting()


def test_the_most_telling_is_printed_and_the_page_is_written(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded(home, "old-1")
    recorded(home, "new-1", judged=False)
    compare_runs(before="old-1", after="new-1", out=None, read=read)
    told = capsys.readouterr().out
    page = home / "comparisons" / "old-1-to-new-1.html"
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert str(page) in told.replace("\n", "")
    for word in ("F1 macro", "seconds", "Gradients vanish", "went", "new-1 was not judged"):
        assert word in told


class Terminal(io.StringIO):
    """What a program writes to a terminal."""

    def isatty(self) -> bool:
        return True


COLOUR = re.compile(r"\x1b\[(?:[0-9]+;)*(?:3[1-7]|9[0-7])m")


@pytest.mark.parametrize(
    ("stream", "variables", "coloured", "escapes"),
    [
        (Terminal, {}, True, True),
        (Terminal, {"NO_COLOR": "1"}, False, True),  # bold is no colour
        (Terminal, {"TERM": "dumb"}, False, False),
        (io.StringIO, {}, False, False),
        (io.StringIO, {"NO_COLOR": "1"}, False, False),
    ],
)
def test_colours_are_for_terminals_alone(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    stream: type[io.StringIO],
    variables: dict[str, str],
    coloured: bool,
    escapes: bool,
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm", **variables}.items():
        monkeypatch.setenv(name, value)
    recorded(home, "old-1")
    recorded(home, "new-1", judged=False)
    monkeypatch.setattr("sys.stdout", written := stream())
    compare_runs(before="old-1", after="new-1", out=None, read=read)
    told = written.getvalue()
    assert "F1 macro" in told
    assert bool(COLOUR.search(told)) is coloured
    assert ("\x1b" in told) is escapes


def test_a_recording_can_be_named_by_its_folder(home: Path) -> None:
    old = recorded(home, "old-1")
    (elsewhere := home / "downloaded").mkdir()
    (elsewhere / "recording.json").write_text("{}")
    out = home / "page.html"
    compare_runs(before=str(old), after=str(elsewhere), out=out, read=read)
    assert "downloaded" in out.read_text()
    assert "old-1" in out.read_text()


def test_a_recording_alone_is_compared_by_the_findings_that_lie_in_it(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded(home, "new-1")
    (alone := home / "downloaded").mkdir()
    (alone / "recording.json").write_text("{}")
    (alone / "findings.json").write_text(diagnosis().model_dump_json())
    (home / "diagnosis.json").write_text("of something else")
    compare_runs(before=str(alone), after="new-1", out=home / "page.html", read=read)
    assert "not judged" not in capsys.readouterr().out


def test_the_link_to_the_newest_run_is_a_name(home: Path) -> None:
    recorded(home, "old-1")
    (home / "runs" / "latest").symlink_to(recorded(home, "new-1").name)
    compare_runs(before="old-1", after="latest", out=None, read=read)
    assert (home / "comparisons" / "old-1-to-new-1.html").exists()


def test_unknown_runs_are_all_told_with_those_that_exist(home: Path) -> None:
    recorded(home, "dogs-resnet18-1")
    (home / "runs" / "unrecorded").mkdir()
    with pytest.raises(UserError) as caught:
        compare_runs(before="dogs-resnet18-2", after="unrecorded", out=None, read=read)
    first, second = caught.value.problems
    assert "did you mean 'dogs-resnet18-1'?" in first
    assert "Recorded runs, the newest first: dogs-resnet18-1" in first
    assert "has no recording" in second
    assert caught.value.exit_code == 2


def test_without_any_run_it_is_said(home: Path) -> None:
    with pytest.raises(UserError, match="no run has left a recording yet"):
        compare_runs(before="a", after="b", out=None, read=read)


def test_a_diagnosis_of_another_version_is_refused(home: Path) -> None:
    (recorded(home, "old-1") / "diagnosis.json").write_text('{"findings": 3}')
    recorded(home, "new-1")
    with pytest.raises(UserError, match="no diagnosis of this version"):
        compare_runs(before="old-1", after="new-1", out=None, read=read)
