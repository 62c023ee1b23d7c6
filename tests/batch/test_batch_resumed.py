"""A batch that was interrupted or killed goes on where it was."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from batch_orders import order, write_many
from darkroom.backends.placement import batches, classify
from darkroom.batch.prediction import predict_all
from darkroom.batch.table import PART_ROWS, BatchImage
from darkroom.models.prediction import Predictor
from served import encoded
from small_bundles import write_small_bundle

_COUNT = PART_ROWS + 60
_STOP = f"{PART_ROWS + 30}.png"


class BatchStoppedError(Exception):
    pass


class Counting(Predictor):
    """Counts what it decodes; stops at an image, if it is told to."""

    decoded = 0
    stop = ""

    def prepare(self, image: bytes | Path, **options: Any) -> Any:
        if Path(str(image)).name == self.stop:
            raise BatchStoppedError
        Counting.decoded += 1
        return super().prepare(image, **options)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_small_bundle(tmp_path / "bundle")


@pytest.fixture
def images(tmp_path: Path) -> list[BatchImage]:
    return write_many(tmp_path / "many", count=_COUNT)


@pytest.fixture
def interrupted(tmp_path: Path, bundle: Path, images: list[BatchImage]) -> dict[str, Any]:
    """Options with which the first part of a batch was made."""
    options: dict[str, Any] = {"top_k": 1, "folder": tmp_path / "parts"}
    predictor = Counting.load(bundle)
    predictor.stop = _STOP
    with pytest.raises(BatchStoppedError):
        predict_all(images, predictor=predictor, **options)
    Counting.decoded = 0
    return options


def test_an_interrupted_batch_goes_on_after_its_last_part(
    bundle: Path, images: list[BatchImage], interrupted: dict[str, Any]
) -> None:
    table = predict_all(images, predictor=Counting.load(bundle), **interrupted)
    assert Counting.decoded == _COUNT - PART_ROWS
    assert [row.file for row in table.rows()] == [image.name for image in images]


def test_images_replaced_by_others_of_equal_size_and_time_are_not_passed_over(
    bundle: Path, images: list[BatchImage], interrupted: dict[str, Any]
) -> None:
    first, second = Path(images[0].place), Path(images[1].place)
    size = max(first.stat().st_size, second.stat().st_size)
    for path in (first, second):
        path.write_bytes(path.read_bytes().ljust(size))
        os.utime(path, (1, 1))
    options = {**interrupted, "resume": True}
    predict_all(images, predictor=Counting.load(bundle), **options)
    first.rename(first.with_name("swap"))
    second.rename(first)
    first.with_name("swap").rename(second)
    Counting.decoded = 0
    predict_all(images, predictor=Counting.load(bundle), **options)
    assert Counting.decoded == _COUNT


def test_a_finished_batch_is_there_until_it_is_discarded(
    bundle: Path, images: list[BatchImage], interrupted: dict[str, Any]
) -> None:
    predict_all(images, predictor=Counting.load(bundle), **interrupted)
    Counting.decoded = 0
    table = predict_all(images, predictor=Counting.load(bundle), **interrupted)
    assert Counting.decoded == 0
    table.discard()
    assert not list(interrupted["folder"].iterdir())


def test_nothing_is_resumed_that_is_not_wanted(
    bundle: Path, images: list[BatchImage], interrupted: dict[str, Any]
) -> None:
    predict_all(images, predictor=Counting.load(bundle), resume=False, **interrupted)
    assert Counting.decoded == _COUNT


def test_a_changed_file_starts_the_batch_anew(
    bundle: Path, images: list[BatchImage], interrupted: dict[str, Any]
) -> None:
    Path(images[0].place).write_bytes(encoded("red", size=(9, 9)))
    table = predict_all(images, predictor=Counting.load(bundle), **interrupted)
    assert next(table.rows()).class_name == "red"
    assert Counting.decoded == _COUNT


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"file": "other.png"}\n'])
def test_a_part_that_is_none_is_made_anew(
    bundle: Path, images: list[BatchImage], interrupted: dict[str, Any], content: bytes
) -> None:
    (part,) = interrupted["folder"].rglob("*.jsonl")
    part.write_bytes(content)
    table = predict_all(images, predictor=Counting.load(bundle), **interrupted)
    assert [row.file for row in table.rows()] == [image.name for image in images]


KILLED = """
import os, signal, sys
from pathlib import Path
from batch_orders import order
from darkroom.backends.placement import classify
from darkroom.models.prediction import Predictor

prepare = Predictor.prepare

def killing(self, image):
    if Path(str(image)).name == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)
    return prepare(self, image)

Predictor.prepare = killing
classify(order(sys.argv[1], Path(sys.argv[2])))
"""


def test_a_killed_batch_goes_on_where_it_was(
    tmp_path: Path, bundle: Path, images: list[BatchImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = str(tmp_path / "many")
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, source, str(bundle), _STOP],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    (part,) = batches().rglob("*.jsonl")
    written = part.stat().st_ino
    table = classify(order(source, bundle))
    assert [row.file for row in table.rows()] == [image.name for image in images]
    assert part.stat().st_ino == written
