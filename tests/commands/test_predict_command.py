"""`run.py predict`: what goes where, in which format, and the exit code."""

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

from checkout import CHECKOUT
from commands import predict as predict_output
from commands.predict import predict_images
from darkroom.base.errors import DarkroomError, UserError
from old_zips import zip_in
from run import cli
from running_endpoint import local_endpoint
from small_bundles import write_small_bundle

NOT_GIVEN = ("model", "endpoint", "target_model", "zip_encoding", "out", "grid")
NOT_WANTED = ("as_json", "as_csv", "all_rows")
DEFAULTS: dict[str, Any] = {
    **dict.fromkeys(NOT_GIVEN),
    **dict.fromkeys(NOT_WANTED, False),
    "stack": "local",
    "top_k": 3,
    "grid_images": 24,
}
CSV = {"as_csv": True}
COLUMNS = ["file", "class", "probability", "top_k", "error", "label"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_bundle(tmp_path_factory.mktemp("model") / "bundle")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two images of each class, one of them in the wrong folder, one broken, one unlabelled."""
    root = tmp_path / "pictures"
    for name, colour in (("blue", "blue"), ("green", "lime"), ("red", "red")):
        (root / name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (30, 30), colour).save(root / name / f"{number}.png")
    (root / "red/1.png").rename(root / "blue/wrong.png")
    (root / "green/broken.png").write_text("no picture")
    Image.new("RGB", (30, 30), "red").save(root / "loose.png")
    return root


@pytest.fixture
def predict(bundle: Path) -> Callable[..., None]:
    def run(*sources: Path | str, **options: object) -> None:
        chosen = {"model": str(bundle)} if "endpoint" not in options else {}
        predict_images(sources=[str(s) for s in sources], **DEFAULTS | chosen | options)

    return run


Predict = Callable[..., None]
Capture = pytest.CaptureFixture[str]


def test_a_table_tells_what_is_right(predict: Predict, pictures: Path, capsys: Capture) -> None:
    predict(pictures)
    shown = capsys.readouterr()
    assert "broken.png" in shown.out
    assert "not an image" in shown.out
    assert "actual" in shown.out
    assert shown.out.splitlines()[-1] == "5 of 6 right (83.3%)"
    assert "1 of 8 could not be used" in shown.err
    assert "7 images classified" in shown.err


def test_a_long_table_is_cut_and_says_so(
    predict: Predict, pictures: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict_output, "TABLE_ROWS", 2)
    predict(pictures)
    shown = capsys.readouterr()
    assert "… and 6 more rows" in shown.out
    assert "broken.png" not in shown.out
    assert "broken.png: not an image" in shown.err
    predict(pictures, all_rows=True)
    assert "broken.png" in capsys.readouterr().out


def test_json_alone_is_on_standard_output(
    predict: Predict, pictures: Path, capsys: Capture
) -> None:
    predict(pictures, as_json=True, top_k=2)
    shown = capsys.readouterr()
    rows = json.loads(shown.out)
    assert [list(row) for row in rows] == [
        ["source", "class", "probability", "top_k", "error", "label"]
    ] * 8
    assert [Path(row["source"]).name for row in rows if row["error"]] == ["broken.png"]
    assert {len(row["top_k"]) for row in rows if not row["error"]} == {2}
    assert [row["label"] for row in rows if row["source"].endswith("loose.png")] == [None]
    assert "5 of 6 right" in shown.err


def test_csv_has_the_columns_of_a_batch(predict: Predict, pictures: Path, capsys: Capture) -> None:
    predict(pictures, as_csv=True)
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [list(row) for row in rows] == [COLUMNS] * 8
    wrong = next(row for row in rows if row["file"].endswith("wrong.png"))
    assert (wrong["class"], wrong["label"]) == ("red", "blue")


def test_csv_holds_names_that_would_break_or_run_a_table(tmp_path: Path, capsys: Capture) -> None:
    names = ('=cmd|" /C calc"!A1', '@home, "sweet"\r\nhome', "+1\r-1")
    bundle = write_small_bundle(tmp_path / "bundle", classes=names)
    colours, root = ("blue", "lime", "red"), tmp_path / "pictures"
    for colour, name in zip(colours, names, strict=True):
        (folder := root / name.replace("/", "_")).mkdir(parents=True)
        Image.new("RGB", (30, 30), colour).save(folder / f"-{colour}, \r.png")
    out = tmp_path / "rows.csv"
    predict_images(sources=[str(root)], **DEFAULTS | {"model": str(bundle), "out": out} | CSV)
    printed = capsys.readouterr().out
    assert out.read_bytes().decode() == printed
    rows = list(csv.DictReader(io.StringIO(printed, newline="")))
    assert {row["class"] for row in rows} == {f"'{name}" for name in names}
    assert [set(json.loads(row["top_k"])) for row in rows] == [set(names)] * 3
    assert [Path(row["file"]).name for row in rows] == [
        f"-{colour}, \r.png" for colour in ("red", "blue", "lime")
    ]
    labelled = [row for row in rows if row["label"]]
    assert [row["label"] for row in labelled] == [row["class"] for row in labelled]
    assert len(labelled) == 2  # a folder cannot be called like the first class


@pytest.mark.parametrize("name", ["rows.json", "rows.CSV"])
def test_a_file_gets_all_rows_beside_the_table(
    name: str, predict: Predict, pictures: Path, tmp_path: Path, capsys: Capture
) -> None:
    predict(pictures, out=tmp_path / name)
    text = (tmp_path / name).read_text()
    rows = json.loads(text) if name == "rows.json" else list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 8
    assert "┃ image" in capsys.readouterr().out


def test_a_grid_is_a_picture(predict: Predict, pictures: Path, tmp_path: Path) -> None:
    predict(pictures, grid=tmp_path / "grid.png", grid_images=6)
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.format == "PNG"
        assert 600 < grid.width < 2000


def test_all_mistakes_are_told_at_once_and_before_anything_is_loaded(tmp_path: Path) -> None:
    files = {"out": tmp_path / "rows.txt", "grid": tmp_path / "absent" / "grid.gif"}
    wrong = {"model": "absent", "endpoint": "pets", "as_json": True, "as_csv": True, **files}
    with pytest.raises(UserError) as caught:
        predict_images(sources=["x.png"], **DEFAULTS | wrong)
    assert len(caught.value.problems) == 5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"target_model": "a"}, "--target-model 'a' needs --endpoint"),
        ({"stack": "sagemaker"}, "--stack sagemaker needs --endpoint"),
        ({"zip_encoding": "cp9999"}, "--zip-encoding 'cp9999' must be an encoding that Python"),
        ({"zip_encoding": "base64"}, "--zip-encoding 'base64' must be an encoding that Python"),
        ({"out": Path("/")}, "must end in .json or .csv"),
        ({"grid": Path("/absent/x.png")}, "its folder does not exist"),
        ({"endpoint": "pets"}, "no endpoint 'pets' on this machine"),
        ({"endpoint": "http://10.0.0.1"}, "no address of an endpoint on this machine"),
    ],
)
def test_a_mistake_is_told(options: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        predict_images(sources=["x.png"], **DEFAULTS | options)


def test_an_archives_names_are_read_by_the_encoding_that_is_given(
    bundle: Path, tmp_path: Path
) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (30, 30), "red").save(stream, "PNG")
    archive = zip_in("cp932", tmp_path / "x.zip", {"帽子/ソファ.png": stream.getvalue()})
    arguments = ["predict", str(archive), "--model", str(bundle), "--json"]
    ran = CliRunner().invoke(cli, [*arguments, "--zip-encoding", "cp932"])
    (row,) = json.loads(ran.stdout)
    assert (row["source"], row["class"]) == (f"{archive}/帽子/ソファ.png", "red")
    refused = CliRunner().invoke(cli, [*arguments, "--zip-encoding", "base64"])
    assert isinstance(refused.exception, UserError)


def test_it_fails_where_nothing_could_be_classified(
    predict: Predict, tmp_path: Path, capsys: Capture
) -> None:
    with pytest.raises(DarkroomError, match="no image could be classified") as caught:
        predict(tmp_path / "a.png", tmp_path / "b.png", as_json=True)
    assert caught.value.exit_code == 1
    shown = capsys.readouterr()
    assert [row["error"] for row in json.loads(shown.out)] == ["no such file or folder"] * 2
    assert "a.png: no such file" in shown.err
    assert "b.png: no such file" in shown.err


def test_names_can_neither_move_the_cursor_nor_be_taken_for_markup(
    predict: Predict, tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "[red]\x1b[2J.png"
    Image.new("RGB", (30, 30), "red").save(path)
    predict(path)
    shown = capsys.readouterr().out
    assert "\x1b[2J" not in shown
    assert "[red]�[2J.png" in shown


@pytest.fixture
def address(bundle: Path, tmp_path: Path) -> Iterator[str]:
    with local_endpoint(bundle, log=tmp_path / "log") as endpoint:
        yield str(endpoint.url)


def test_an_endpoint_gives_the_rows_that_the_model_does(
    predict: Predict, pictures: Path, address: str, capsys: Capture
) -> None:
    predict(pictures, as_json=True, top_k=2)
    expected = json.loads(capsys.readouterr().out)
    predict(pictures, endpoint=address, as_json=True, top_k=2)
    shown = capsys.readouterr()
    rows = json.loads(shown.out)
    for row, wanted in zip(rows, expected, strict=True):
        assert row.keys() == wanted.keys()
        same = ("source", "class", "label")
        assert [row[key] for key in same] == [wanted[key] for key in same]
        assert bool(row["error"]) == bool(wanted["error"])
        shares = [item["probability"] for item in wanted["top_k"]]
        assert [item["probability"] for item in row["top_k"]] == pytest.approx(shares, abs=1e-3)
    assert "ms an answer (p99" in shown.err


def test_an_endpoint_that_is_gone_is_one_clear_error(
    predict: Predict, pictures: Path, capsys: Capture
) -> None:
    with pytest.raises(DarkroomError, match=r"127\.0\.0\.1:1 does not answer: Connection refused"):
        predict(pictures, endpoint="http://127.0.0.1:1", as_json=True)
    assert json.loads(capsys.readouterr().out) == []


def test_whoever_reads_only_the_first_rows_causes_no_traceback(
    bundle: Path, pictures: Path
) -> None:
    command = [sys.executable, str(CHECKOUT / "run.py"), "predict", "--csv", "--model", str(bundle)]
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing) as closed:
        result = subprocess.run(
            [*command, str(pictures)], stdout=closed, stderr=subprocess.PIPE, text=True, check=False
        )
    assert "Traceback" not in result.stderr
    assert "BrokenPipe" not in result.stderr
    assert result.returncode == 1
