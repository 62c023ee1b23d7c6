"""Predictions for many files in this process, and the tables they are written to."""

import csv
import json
from pathlib import Path

import pytest
from pyarrow import parquet

from darkroom.backends.batch import BatchPrediction, predict_batch, write_csv, write_parquet
from darkroom.model.bundle import read_bundle
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


def test_the_tables_hold_every_row(rows: list[BatchPrediction], tmp_path: Path) -> None:
    write_csv(rows, tmp_path / "rows.csv")
    write_parquet(rows, tmp_path / "rows.parquet")
    with (tmp_path / "rows.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    stored = parquet.read_table(tmp_path / "rows.parquet").to_pylist()
    assert [row["file"] for row in written] == [row["file"] for row in stored]
    assert written[0]["class"] == stored[0]["class"] == rows[0].class_name
    assert float(written[0]["probability"]) == stored[0]["probability"] == rows[0].probability
    assert len(json.loads(written[0]["top_k"])) == 2
    assert "not an image" in written[3]["error"]
    assert stored[3]["class"] is None
