"""A batch in this process. Finished parts are kept, so that it goes on where it was.

A part is a file of some hundred rows, written whole; the parts of a batch lie in a folder
whose name says what decides the rows: the model, its engine, and each image's path, size and
time of change. The folder is removed once all rows have been handed over.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

from darkroom.batch.rows import BatchImage, BatchRow, joined
from darkroom.errors import UserError
from darkroom.files import write_text
from darkroom.inputs.found import FoundImage
from darkroom.prediction import Prediction, Predictor
from darkroom.prediction_inputs import predict_images
from darkroom.progress import SILENT, Progress

_PART_ROWS = 256
_DIGITS = 24


def predict_all(
    images: Sequence[BatchImage],
    *,
    predictor: Predictor,
    top_k: int,
    folder: Path,
    resume: bool = True,
    progress: Progress = SILENT,
) -> list[BatchRow]:
    """Classify files; those that cannot be read are rows with an error.

    Args:
        folder: below which unfinished batches are kept.
        resume: go on from what an interrupted call with the same images has left.
    """
    parts = folder / _identity(images, predictor=predictor, top_k=top_k)
    if not resume:
        shutil.rmtree(parts, ignore_errors=True)
    rows = _read_parts(parts, images=images)
    with progress.task("predicting", total=len(images)) as task:
        task.advance(len(rows))
        rest = images[len(rows) :]
        predictions = _predictions(rest, predictor=predictor, top_k=top_k)
        for start in range(0, len(rest), _PART_ROWS):
            part = rest[start : start + _PART_ROWS]
            finished = joined(part, islice(predictions, len(part)))
            _write_part(parts, number=len(rows), rows=finished)
            rows += finished
            task.advance(len(finished))
    shutil.rmtree(parts, ignore_errors=True)
    return rows


def _predictions(
    images: Sequence[BatchImage], *, predictor: Predictor, top_k: int
) -> Iterable[Prediction]:
    found = (FoundImage(image.name, content=Path(image.place)) for image in images)
    return (row for _, row in predict_images(found, predictor=predictor, top_k=top_k))


def _identity(images: Sequence[BatchImage], *, predictor: Predictor, top_k: int) -> str:
    digest = hashlib.sha256()
    what = [predictor.metadata.files, predictor.engine.name, top_k]
    digest.update(json.dumps(what, sort_keys=True).encode())
    for image in images:
        digest.update(f"{image.place}\0{image.label}\0{_state(Path(image.place))}\n".encode())
    return digest.hexdigest()[:_DIGITS]


def _state(path: Path) -> str:
    try:
        state = path.stat()
    except OSError:
        return "missing"
    return f"{state.st_size} {state.st_mtime_ns}"


def _read_parts(folder: Path, *, images: Sequence[BatchImage]) -> list[BatchRow]:
    """The rows of the parts that follow each other from the first."""
    rows: list[BatchRow] = []
    while (path := _part(folder, len(rows))).is_file():
        part = [BatchRow.model_validate_json(line) for line in path.read_text().splitlines()]
        if [row.file for row in part] != [i.name for i in images[len(rows) :][: len(part)]]:
            raise UserError(f"{str(path)!r} is no part of this batch; remove it, or --no-resume")
        rows += part
    return rows


def _write_part(folder: Path, *, number: int, rows: Sequence[BatchRow]) -> None:
    text = "".join(f"{row.model_dump_json()}\n" for row in rows)
    write_text(_part(folder, number), text)


def _part(folder: Path, number: int) -> Path:
    """Of the rows from `number` on."""
    return folder / f"{number:08}.jsonl"
