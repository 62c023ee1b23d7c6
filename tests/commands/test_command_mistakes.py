"""Mistakes that a person makes on the command line, each answered once and in plain words."""

import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command_line import run
from commands.compare import compare_runs
from commands.serve import serve_model
from darkroom.backends.predictions import as_csv
from darkroom.base.errors import UserError
from darkroom.base.files import csv_text
from darkroom.models.bundle import read_bundle
from darkroom.models.prediction import Prediction, Predictor
from rehearsal.emulator.faults import parse_fault
from small_bundles import write_small_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_bundle(tmp_path_factory.mktemp("bundles") / "colours")


def test_an_unknown_fault_is_told_before_anything_is_started() -> None:
    result = run("--stack", "rehearsal", "--fault", "throtling", "--fault", "throttling:x=1")
    assert result.returncode == 2
    assert "did you mean 'throttling'?" in result.stderr
    assert "takes no 'x'" in result.stderr
    assert "Starting a stand-in" not in result.stderr


@pytest.mark.parametrize("text", ["nonsense", "", ":", "throttling:rate=lots"])
def test_no_fault_is_answered_in_pydantics_words(text: str) -> None:
    with pytest.raises(ValueError, match=r"fault|it|throttling|nonsense") as caught:
        parse_fault(text)
    assert "expected tags" not in str(caught.value)
    assert "Input" not in str(caught.value) or "rate" in str(caught.value)


def test_a_taken_port_is_told_with_its_reason_once(bundle: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = run("serve", str(bundle), "--port", str(taken.getsockname()[1]))
    assert result.returncode == 1
    assert result.stderr.count("Address already in use") == 1
    assert "--port" in result.stderr


@pytest.mark.parametrize(
    ("folder", "reason"), [("images", "holds no model"), ("colours", "is one model itself")]
)
def test_a_folder_without_models_is_not_served(
    bundle: Path, tmp_path: Path, folder: str, reason: str
) -> None:
    (tmp_path / "images" / "cat").mkdir(parents=True)
    place = bundle if folder == "colours" else tmp_path / folder
    with pytest.raises(UserError, match=reason):
        serve_model(model=None, models=str(place), port=0)


def test_a_run_is_not_compared_with_itself(tmp_path: Path) -> None:
    (tmp_path / "recording").mkdir()
    (tmp_path / "recording" / "recording.json").write_text("{}")
    with pytest.raises(UserError, match="are the same run"):
        compare_runs(
            before=str(tmp_path), after=str(tmp_path / "recording"), out=None, read=lambda _: None
        )


def test_every_kind_of_image_is_predicted_alike(bundle: Path, tmp_path: Path) -> None:
    predictor = Predictor.load(bundle)
    pixels = np.zeros((20, 24, 3), dtype=np.uint8)
    pixels[..., 0] = 200
    picture = Image.fromarray(pixels)
    picture.save(tmp_path / "red.png")
    content = (tmp_path / "red.png").read_bytes()
    kinds = [
        *(str(tmp_path / "red.png"), tmp_path / "red.png", content, bytearray(content)),
        *(memoryview(content), picture, picture.convert("RGBA"), pixels),
    ]
    rows = predictor.predict(kinds)
    assert (rows == rows[0]).all()
    assert predictor.classes[rows[0].argmax()] == "red"


def test_an_image_of_pillow_keeps_its_orientation(bundle: Path, tmp_path: Path) -> None:
    pixels = np.zeros((8, 64, 3), dtype=np.uint8)
    pixels[:, :20, 0] = 255  # on the left, which the crop cuts off
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    predictor = Predictor.load(bundle)
    with Image.open(tmp_path / "turned.png") as opened:
        rows = predictor.predict([tmp_path / "turned.png", opened])
    assert (rows[0] == rows[1]).all()


@pytest.mark.parametrize("wrong", [7, None, np.zeros((2, 2)), np.zeros((3, 5, 5), dtype=np.uint8)])
def test_what_is_no_image_is_a_type_error_that_says_so(wrong: object, bundle: Path) -> None:
    with pytest.raises(TypeError, match=r"image 0 is a .*; images are paths"):
        Predictor.load(bundle).predict([wrong])
    with pytest.raises(TypeError, match="brackets"):
        Predictor.load(bundle).predict("red.png")


def test_a_bundle_is_shown_in_a_few_lines(bundle: Path) -> None:
    assert len(repr(read_bundle(bundle))) < 4000


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@x", "\tx", "\rx"])
def test_a_cell_that_a_spreadsheet_would_run_is_text(name: str) -> None:
    row = Prediction.model_validate({"source": name, "class": name, "error": name})
    table = as_csv([row], labels=[name])
    assert table.count(f"'{name}") == 4
    assert csv_text("a=b") == "a=b"
