"""A batch in this process, which goes on where an interrupted one was.

Its finished parts lie in a folder whose name says what decides the rows: the model, its engine,
and each image's path, size, times and inode. Whoever has written them where they were wanted
removes it.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from darkroom.batch.rows import BatchImage, joined
from darkroom.batch.table import BatchAbout, BatchTable, finish, part_of, read_part, write_parts
from darkroom.inputs.found import FoundImage
from darkroom.model.bundle import BundleMetadata
from darkroom.prediction import Prediction, Predictor
from darkroom.prediction_inputs import predict_images
from darkroom.progress import SILENT, Progress
from darkroom.sources.hashing import FileState

_DIGITS = 24
_SECONDS_BETWEEN_SPEEDS = 5


def predict_all(
    images: Sequence[BatchImage],
    *,
    predictor: Predictor,
    top_k: int,
    folder: Path,
    resume: bool = True,
    progress: Progress = SILENT,
) -> BatchTable:
    """Classify files; those that cannot be read are rows with an error.

    Args:
        folder: below which batches are kept until they are discarded.
        resume: go on from what an interrupted call with the same images has left.

    Raises:
        DarkroomError: the model is unusable.
    """
    about = describe(
        images, metadata=predictor.metadata, program=predictor.engine.name, top_k=top_k
    )
    about = about.model_copy(update={"engine": predictor.engine.name})
    if predictor.fallback:
        progress.message(predictor.fallback)
    kept = folder / about.identity
    if not resume:
        shutil.rmtree(kept, ignore_errors=True)
    done = _finished(kept, images=images)
    rest = images[done:]
    predictions = _shown(
        _predictions(rest, predictor=predictor, top_k=top_k),
        total=len(images),
        done=done,
        progress=progress,
    )
    write_parts(kept, joined(rest, predictions, top_k=top_k), start=done)
    return finish(kept, about)


def describe(
    images: Sequence[BatchImage], *, metadata: BundleMetadata, program: str, top_k: int
) -> BatchAbout:
    """What a batch is of, with an identity by all that decides its rows.

    Args:
        program: what runs the network.
    """
    digest = hashlib.sha256()
    what = [metadata.files, program, top_k]
    digest.update(json.dumps(what, sort_keys=True).encode())
    for image in images:
        line = f"{image.place}\0{image.label}\0{image.error}\0{_state(image.place)}\n"
        digest.update(os.fsencode(line))
    return BatchAbout(
        identity=digest.hexdigest()[:_DIGITS],
        model_version=metadata.version,
        classes=metadata.classes,
    )


def _state(place: str) -> str:
    """What tells whether a file has changed: its times of modification can be put back."""
    try:
        return FileState.of(Path(place)).token
    except OSError:
        return "missing"


def _finished(folder: Path, *, images: Sequence[BatchImage]) -> int:
    """How many rows are there, in parts that follow each other from the first."""
    done = 0
    while (path := part_of(folder, done)).is_file():
        try:
            names = [row.file for row in read_part(path)]
        except (ValidationError, UnicodeDecodeError):
            break  # not ours: the rows are made anew
        if not names or names != [image.name for image in images[done : done + len(names)]]:
            break
        done += len(names)
    return done


def _predictions(
    images: Sequence[BatchImage], *, predictor: Predictor, top_k: int
) -> Iterator[Prediction]:
    found = (
        FoundImage(image.name, content=Path(image.place), error=image.error) for image in images
    )
    return (row for _, row in predict_images(found, predictor=predictor, top_k=top_k))


def _shown(
    predictions: Iterator[Prediction], *, total: int, done: int, progress: Progress
) -> Iterator[Prediction]:
    """The same, with a bar and, now and then, the speed."""
    started = told = time.monotonic()
    if done:
        progress.message(f"Going on after {done:,} of {total:,} images")
    with progress.task("predicting", total=total) as task:
        task.advance(done)
        for count, prediction in enumerate(predictions, start=1):
            yield prediction
            now, speed = time.monotonic(), ""
            if now - told >= _SECONDS_BETWEEN_SPEEDS:
                told, speed = now, f"{count / (now - started):.0f} images/s"
            task.advance(detail=speed)
