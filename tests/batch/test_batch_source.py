"""A whole source through a model: which images, what they show, and what is written."""

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from zipfile import ZipFile

import pytest
from pyarrow import parquet

from batch_orders import order, table_of
from darkroom.backends.placement import check_order, classify, classify_by
from darkroom.backends.predictions import BatchPrediction, predict_batch
from darkroom.base.errors import UserError
from darkroom.batch.scoring import score
from darkroom.batch.selection import images_in_folder, images_of_uris
from darkroom.batch.table import COLUMNS, BatchRow, check_table_name, write_table
from darkroom.config import Config
from darkroom.models.bundle import Bundle
from darkroom.models.prediction import ClassProbability
from pictures import write_image_folder
from served import encoded
from small_bundles import CLASSES, write_small_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_small_bundle(tmp_path / "bundle")


def files(source: Path, bundle: Path, **values: object) -> dict[str, str | None]:
    """Names and labels of the rows."""
    return {row.file: row.label for row in classify(order(source, bundle, **values)).rows()}


def test_folders_named_like_classes_label_their_images(tmp_path: Path, bundle: Path) -> None:
    root = write_image_folder(tmp_path / "images", per_class=2)
    (root / "red" / "broken.png").write_bytes(b"no image")
    table = classify(order(root, bundle))
    rows = list(table.rows())
    assert [row.file for row in rows] == sorted(row.file for row in rows)
    broken = next(row for row in rows if row.file == "red/broken.png")
    assert "not an image" in (broken.error or "")
    assert broken.correct is None
    found = score(table)
    assert (found.images, found.unreadable, found.labelled) == (7, 1, 6)
    assert found.metrics["accuracy"] == found.correct / 6


def test_without_class_folders_nothing_is_labelled(tmp_path: Path, bundle: Path) -> None:
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "a.png").write_bytes(encoded("red"))
    table = classify(order(tmp_path / "flat", bundle))
    (row,) = table.rows()
    assert (row.class_name, row.label) == ("red", None)
    assert score(table).metrics == {}


def test_a_folder_beside_those_of_classes_is_a_class_that_the_model_does_not_know(
    tmp_path: Path, bundle: Path
) -> None:
    root = write_image_folder(
        tmp_path / "images", classes=("red", "mauve"), splits=("train", "test"), per_class=1
    )
    for name in ("train/mauve/deeper", "test", "test/test"):
        (root / name).mkdir(exist_ok=True)
        (root / name / "one.png").write_bytes(encoded())
    assert files(root, bundle) == {
        "train/red/0000.png": "red",
        "train/mauve/0000.png": "mauve",
        "train/mauve/deeper/one.png": "mauve",
        "test/red/0000.png": "red",
        "test/mauve/0000.png": "mauve",
        "test/one.png": None,
        "test/test/one.png": None,
    }


def test_a_split_is_what_lies_in_its_folder(tmp_path: Path, bundle: Path) -> None:
    root = write_image_folder(tmp_path / "images", splits=("train", "test"), per_class=1)
    assert {name.split("/")[0] for name in files(root, bundle, split="test")} == {"test"}
    with pytest.raises(UserError, match="no split 'validation'"):
        classify(order(root, bundle, split="validation"))


def test_an_archive_is_named_by_its_files(tmp_path: Path, bundle: Path) -> None:
    with ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("photos/red/a.png", encoded("red"))
        archive.writestr("photos/blue/b.png", encoded("blue"))
    found = files(tmp_path / "images.zip", bundle)
    assert found == {"photos/blue/b.png": "blue", "photos/red/a.png": "red"}


def test_without_a_source_it_is_the_configured_data(tmp_path: Path, bundle: Path) -> None:
    root = write_image_folder(tmp_path / "images", splits=("train", "test"), per_class=6)
    config = Config.model_validate({"data": {"source": str(root)}})
    table = classify(order(None, bundle, config=config, split="test"))
    assert score(table).labelled == 18


def test_names_that_are_no_text_are_escaped(tmp_path: Path, bundle: Path) -> None:
    folder = tmp_path / "images" / "red"
    folder.mkdir(parents=True)
    odd = os.fsdecode(b"caf\xe9,\n.png")
    (folder / odd).write_bytes(encoded("red"))
    table = classify(order(tmp_path / "images", bundle))
    for name in ("rows.csv", "rows.parquet"):
        write_table(table, tmp_path / name)
    (row,) = parquet.read_table(tmp_path / "rows.parquet").to_pylist()
    assert (row["file"], row["class"], row["label"]) == ("red/caf\\udce9,\n.png", "red", "red")


def test_a_source_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no images"):
        images_in_folder(tmp_path / "empty", split="all", classes=CLASSES, source="empty")


def test_objects_on_s3_are_named_and_labelled_like_files() -> None:
    uris = ["s3://b/photos/red/a.jpg", "s3://b/photos/mauve/c.jpg"]
    one, other = images_of_uris(uris, below="s3://b/photos/", classes=CLASSES)
    assert (one.name, one.place, one.label) == ("red/a.jpg", uris[0], "red")
    assert (other.name, other.label) == ("mauve/c.jpg", "mauve")


def test_a_job_works_on_a_prefix_as_it_is(bundle: Path) -> None:
    def answer(images: Sequence[Path] | str, *, bundle: Bundle) -> list[BatchPrediction]:
        return [BatchPrediction(source=f"{images}/red/a.png", error="no answer")]

    (row,) = classify_by(answer, order=order("s3://b/photos", bundle)).rows()
    assert (row.file, row.label, row.error) == ("red/a.png", "red", "no answer")


def test_a_job_answers_for_files_what_this_machine_does(tmp_path: Path, bundle: Path) -> None:
    root = write_image_folder(tmp_path / "images", per_class=2)
    (root / "red" / "broken.png").write_bytes(b"no image")
    there = list(classify_by(predict_batch, order=order(root, bundle, top_k=1)).rows())
    assert there == list(classify(order(root, bundle, top_k=1)).rows())
    assert [len(row.top_k) for row in there] == [1] * 6 + [0]


@pytest.mark.parametrize("source", ["/absent", "ftp://host/file", ""])
def test_a_source_that_cannot_be_is_refused_before_anything_is_started(
    bundle: Path, source: str
) -> None:
    with pytest.raises(UserError, match=r"exist|scheme|nothing"):
        check_order(order(source, bundle))


def test_a_bundle_that_is_none_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no model bundle"):
        check_order(order(tmp_path, tmp_path / "absent"))


ROWS = [
    BatchRow(
        file="red/a.png",
        class_name="red",
        probability=0.75,
        top_k=[
            ClassProbability(class_name="red", probability=0.75),
            ClassProbability(class_name="blue", probability=0.25),
        ],
        label="red",
    ),
    BatchRow(file="b.png", error="not an image"),
]


def test_csv_and_parquet_hold_the_same_columns(tmp_path: Path) -> None:
    for name in ("rows.csv", "rows.parquet"):
        write_table(table_of(tmp_path / "rows", ROWS), tmp_path / name)
    with (tmp_path / "rows.csv").open() as file:
        first, second = csv.DictReader(file)
    assert json.loads(first["top_k"]) == {"red": 0.75, "blue": 0.25}
    assert (first["correct"], second["correct"], second["error"]) == ("True", "", "not an image")
    read = parquet.read_table(tmp_path / "rows.parquet")
    assert tuple(read.column_names) == COLUMNS == tuple(first)
    one, other = read.to_pylist()
    assert one["top_k"][1] == {"class": "blue", "probability": 0.25}
    assert (one["correct"], other["correct"], other["class"]) == (True, None, None)


def test_more_rows_than_are_held_at_a_time_are_all_written(tmp_path: Path) -> None:
    rows = [BatchRow(file=f"{number}.png", error="none") for number in range(5000)]
    write_table(table_of(tmp_path / "rows", rows), tmp_path / "rows.parquet")
    read = parquet.ParquetFile(tmp_path / "rows.parquet")
    assert read.num_row_groups == 2
    assert read.read(["file"]).column("file").to_pylist() == [row.file for row in rows]


def test_a_table_without_rows_is_written(tmp_path: Path) -> None:
    write_table(table_of(tmp_path / "rows", []), tmp_path / "rows.parquet")
    assert parquet.read_table(tmp_path / "rows.parquet").num_rows == 0


@pytest.mark.parametrize("name", ["rows.json", "rows", "rows.csv.gz"])
def test_another_ending_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"\.csv or \.parquet"):
        check_table_name(Path(name))


def test_labels_that_the_model_does_not_know_are_counted_apart(tmp_path: Path) -> None:
    rows = [*ROWS, ROWS[0].model_copy(update={"label": "mauve"})]
    found = score(table_of(tmp_path / "rows", rows))
    assert (found.labelled, found.unknown_labels, found.correct) == (1, 1, 1)
    assert found.metrics["accuracy"] == 1
