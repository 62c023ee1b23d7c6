"""A whole source through a model: which images, what is written, how good, and resumed."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from darkroom.backends.batch_source import classify
from darkroom.batch.order import BatchOrder
from darkroom.batch.predicting import predict_all
from darkroom.batch.rows import BatchImage, BatchRow, BatchTable
from darkroom.batch.scoring import score
from darkroom.batch.selecting import image_of_uri, images_in_folder
from darkroom.batch.tables import COLUMNS, check_table_name, write_table
from darkroom.config import Config
from darkroom.errors import UserError
from darkroom.prediction import ClassProbability, Predictor
from pictures import write_image_folder
from served import encoded
from small_bundles import CLASSES, write_small_bundle

CHECKOUT = Path(__file__).resolve().parent.parent


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_small_bundle(tmp_path / "bundle")


def order(source: Path | str, bundle: Path, **values: Any) -> BatchOrder:
    given = {"split": "all", "top_k": 2, "resume": True, "config": Config(), **values}
    return BatchOrder(source=str(source), model=bundle, **given)


def test_folders_named_like_classes_label_their_images(tmp_path: Path, bundle: Path) -> None:
    root = write_image_folder(tmp_path / "images", per_class=2)
    (root / "red" / "broken.png").write_bytes(b"no image")
    table = classify(order(root, bundle))
    assert [row.file for row in table.rows] == sorted(row.file for row in table.rows)
    broken = next(row for row in table.rows if row.file == "red/broken.png")
    assert "not an image" in (broken.error or "")
    assert broken.correct is None
    found = score(table)
    assert (found.images, found.unreadable, found.labelled) == (7, 1, 6)
    assert found.metrics["accuracy"] == found.correct / 6


def test_without_class_folders_nothing_is_labelled(tmp_path: Path, bundle: Path) -> None:
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "a.png").write_bytes(encoded("red"))
    table = classify(order(tmp_path / "flat", bundle))
    assert (table.rows[0].class_name, table.rows[0].label) == ("red", None)
    assert score(table).metrics == {}


def test_a_split_is_what_lies_in_its_folder(tmp_path: Path, bundle: Path) -> None:
    root = write_image_folder(tmp_path / "images", splits=("train", "test"), per_class=1)
    rows = classify(order(root, bundle, split="test")).rows
    assert {row.file.split("/")[0] for row in rows} == {"test"}
    with pytest.raises(UserError, match="no split 'validation'"):
        classify(order(root, bundle, split="validation"))


def test_a_source_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no images"):
        images_in_folder(tmp_path / "empty", split="all", classes=CLASSES, source="empty")


def test_objects_on_s3_are_named_and_labelled_like_files() -> None:
    image = image_of_uri("s3://b/photos/red/a.jpg", below="s3://b/photos/", classes=CLASSES)
    assert (image.name, image.label) == ("red/a.jpg", "red")


TABLE = BatchTable(
    model_version="abc",
    classes=CLASSES,
    rows=(
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
    ),
)


def test_csv_and_parquet_hold_the_same_columns(tmp_path: Path) -> None:
    for name in ("rows.csv", "rows.parquet"):
        write_table(TABLE, tmp_path / name)
    with (tmp_path / "rows.csv").open() as file:
        first, second = csv.DictReader(file)
    assert json.loads(first["top_k"]) == {"red": 0.75, "blue": 0.25}
    assert (first["correct"], second["correct"], second["error"]) == ("True", "", "not an image")
    read = parquet.read_table(tmp_path / "rows.parquet")
    assert tuple(read.column_names) == COLUMNS == tuple(first)
    one, other = read.to_pylist()
    assert one["top_k"][1] == {"class": "blue", "probability": 0.25}
    assert (one["correct"], other["correct"], other["class"]) == (True, None, None)


def test_a_table_without_rows_is_written(tmp_path: Path) -> None:
    write_table(TABLE.model_copy(update={"rows": ()}), tmp_path / "rows.parquet")
    assert parquet.read_table(tmp_path / "rows.parquet").num_rows == 0


@pytest.mark.parametrize("name", ["rows.json", "rows", "rows.csv.gz"])
def test_another_ending_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"\.csv or \.parquet"):
        check_table_name(Path(name))


def test_labels_that_the_model_does_not_know_are_counted() -> None:
    row = TABLE.rows[0].model_copy(update={"label": "mauve"})
    found = score(TABLE.model_copy(update={"rows": (row,)}))
    assert (found.labelled, found.unknown_labels) == (0, 1)


class Counting(Predictor):
    """Counts what it decodes."""

    decoded = 0

    def prepare(self, image: bytes | Path) -> Any:
        Counting.decoded += 1
        return super().prepare(image)


@pytest.fixture
def images(tmp_path: Path) -> list[BatchImage]:
    names = [f"{number:03}.png" for number in range(600)]
    (tmp_path / "many").mkdir()
    for name in names:
        (tmp_path / "many" / name).write_bytes(encoded("blue", size=(8, 8)))
    return [BatchImage(name=name, place=str(tmp_path / "many" / name)) for name in names]


def test_an_interrupted_batch_goes_on_where_it_was(
    tmp_path: Path, bundle: Path, images: list[BatchImage]
) -> None:
    class BatchStoppedError(Exception):
        pass

    class Interrupting(Counting):
        def prepare(self, image: bytes | Path) -> Any:
            if Path(str(image)).name == "400.png":
                raise BatchStoppedError
            return super().prepare(image)

    options: dict[str, Any] = {"top_k": 1, "folder": tmp_path / "parts"}
    with pytest.raises(BatchStoppedError):
        predict_all(images, predictor=Interrupting.load(bundle), **options)
    Counting.decoded = 0
    rows = predict_all(images, predictor=Counting.load(bundle), **options)
    assert Counting.decoded == 600 - 256
    assert [row.file for row in rows] == [image.name for image in images]
    assert not list((tmp_path / "parts").iterdir())


def test_a_changed_file_starts_the_batch_anew(
    tmp_path: Path, bundle: Path, images: list[BatchImage]
) -> None:
    options: dict[str, Any] = {"top_k": 1, "folder": tmp_path / "parts"}
    predictor = Counting.load(bundle)
    predict_all(images, predictor=predictor, **options)
    Counting.decoded = 0
    Path(images[0].place).write_bytes(encoded("red", size=(9, 9)))
    assert predict_all(images, predictor=predictor, **options)[0].class_name == "red"
    assert Counting.decoded == 600


KILLED = """
import os, signal, sys
from pathlib import Path
from darkroom.backends.batch_source import classify
from darkroom.batch.order import BatchOrder
from darkroom.config import Config
from darkroom.prediction import Predictor

prepare = Predictor.prepare

def killing(self, image):
    if Path(str(image)).name == "400.png":
        os.kill(os.getpid(), signal.SIGKILL)
    return prepare(self, image)

Predictor.prepare = killing
classify(BatchOrder(source=sys.argv[1], split="all", model=Path(sys.argv[2]), top_k=2,
                    resume=True, config=Config()))
"""


def test_a_killed_batch_goes_on_where_it_was(
    tmp_path: Path, bundle: Path, images: list[BatchImage]
) -> None:
    source = str(tmp_path / "many")
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, source, str(bundle)], env=os.environ, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    parts = list((Path(os.environ["DARKROOM_HOME"]) / "batches").rglob("*.jsonl"))
    assert len(parts) == 1
    table = classify(order(source, bundle))
    assert [row.file for row in table.rows] == [image.name for image in images]
    assert not list((Path(os.environ["DARKROOM_HOME"]) / "batches").rglob("*.jsonl"))


def run(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(CHECKOUT / "run.py"), "batch", *arguments],
        env={**os.environ, "DARKROOM_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("stack", ["local", "rehearsal"])
@pytest.mark.slow
def test_the_command_writes_tables_and_metrics_on_each_stack(
    tmp_path: Path, bundle: Path, stack: str
) -> None:
    root = write_image_folder(tmp_path / "images", per_class=2)
    (root / "red" / "broken.png").write_bytes(b"no image")
    out = tmp_path / "rows.csv"
    done = run(
        *(str(root), "--model", str(bundle), "--out", str(out), "--stack", stack),
        home=tmp_path / "home",
    )
    assert done.returncode == 0, done.stderr
    assert "7 images, 1 unreadable" in done.stdout
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 7
    assert sum(bool(row["error"]) for row in rows) == 1
    found = json.loads((tmp_path / "rows.metrics.json").read_text())
    assert (found["images"], found["unreadable"]) == (7, 1)


@pytest.mark.slow
def test_a_source_of_which_nothing_can_be_read_fails_with_its_table_written(
    tmp_path: Path, bundle: Path
) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"no image")
    out = tmp_path / "rows.csv"
    done = run(
        str(tmp_path / "bad"), "--model", str(bundle), "--out", str(out), home=tmp_path / "home"
    )
    assert done.returncode == 1
    assert "none of the images could be read" in done.stderr
    assert out.is_file()


def test_names_that_cannot_be_written_are_refused_before_the_work(
    tmp_path: Path, bundle: Path
) -> None:
    home = tmp_path / "home"
    model = ("--model", str(bundle))
    for out, words in (("rows.json", ".parquet"), ("/absent/rows.csv", "cannot be written")):
        done = run(str(tmp_path), *model, "--out", out, home=home)
        assert done.returncode == 2
        assert words in done.stderr
        assert "Traceback" not in done.stderr
