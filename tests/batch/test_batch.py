"""Predictions for many files in this process, and the table they become."""

import csv
import io
import json
from pathlib import Path

import pytest

from darkroom.backends.predictions import BatchPrediction, as_csv, predict_batch
from darkroom.models.bundle import read_bundle
from pictures import write_image_folder
from small_bundles import write_small_bundle


@pytest.fixture
def rows(tmp_path: Path) -> list[BatchPrediction]:
    folder = write_image_folder(tmp_path / "images", per_class=1, suffix=".png")
    images = sorted(path for path in folder.rglob("*") if path.is_file())
    (tmp_path / "broken.png").write_bytes(b"no image")
    bundle = read_bundle(write_small_bundle(tmp_path / "bundle"))
    return predict_batch([*images, tmp_path / "broken.png"], bundle=bundle, top_k=2)


def test_an_unreadable_file_is_a_row_with_its_error(rows: list[BatchPrediction]) -> None:
    assert [bool(row.error) for row in rows] == [False, False, False, True]
    assert all(row.class_name and len(row.top_k) == 2 for row in rows[:3])


def test_the_table_holds_every_row(rows: list[BatchPrediction]) -> None:
    written = list(csv.DictReader(io.StringIO(as_csv(rows))))
    assert [row["file"] for row in written] == [row.source for row in rows]
    assert written[0]["class"] == rows[0].class_name
    assert float(written[0]["probability"]) == rows[0].probability
    assert len(json.loads(written[0]["top_k"])) == 2
    assert "not an image" in written[3]["error"]
    assert written[3]["class"] == ""
