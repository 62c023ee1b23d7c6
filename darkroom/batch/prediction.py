"""A batch in this process, which goes on where an interrupted one was.

Its finished parts lie in a folder whose name says what decides the rows: the model, its engine,
and each image's path, size, times and inode. Whoever has written them where they were wanted
removes it.
"""

import hashlib
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from darkroom.base.errors import UserError
from darkroom.base.progress import SILENT, Progress
from darkroom.base.values import digest_of
from darkroom.batch.table import (
    BatchAbout,
    BatchImage,
    BatchTable,
    finish,
    joined,
    part_of,
    read_part,
    write_parts,
)
from darkroom.data.found_image import FoundImage
from darkroom.data.hashes import FileState
from darkroom.data.inputs import count, images_of, look_at
from darkroom.models.bundle import BundleMetadata
from darkroom.models.engine import Floats
from darkroom.models.prediction import ClassProbability, Prediction, Predictor

# --- images in order ---
# Predicting whatever `predict` is given, in this process: one row for each image.
#
# One bad image is a row with an error, never the end of the others.

_BATCH_IMAGES = 32
_BATCH_BYTES = 64 * 2**20
"""Of encoded images that are held at a time; those of files do not count."""


def predict_sources(
    sources: Sequence[str], *, predictor: Predictor, top_k: int = 5, progress: Progress = SILENT
) -> list[Prediction]:
    """Predict images, folders, archives and http(s) URLs of them, in the order given.

    Folders are walked with all below them, in sorted order; hidden files, and files that
    are no images by their extension, are left out.

    Args:
        sources: paths and addresses, as they were typed.
        top_k: classes in each prediction, the most probable first.
        progress: counts images.
    """
    known = look_at(sources)
    predictions = []
    with progress.task("predicting", total=count(known)) as task:
        for _, prediction in predict_images(images_of(known), predictor=predictor, top_k=top_k):
            predictions.append(prediction)
            task.advance()
    return predictions


def predict_images(
    images: Iterable[FoundImage], *, predictor: Predictor, top_k: int = 5
) -> Iterator[tuple[FoundImage, Prediction]]:
    """Each image with its prediction, in the order given; only one batch is held at a time.

    Raises:
        DarkroomError: the model is unusable.
    """
    with ThreadPoolExecutor(predictor.threads) as pool:
        for batch in _batches(images):
            arrays = list(pool.map(lambda found: _prepare(found, predictor=predictor), batch))
            rows = _rows(batch, arrays=arrays, predictor=predictor, top_k=top_k)
            yield from zip(batch, rows, strict=True)


def _batches(images: Iterable[FoundImage]) -> Iterator[list[FoundImage]]:
    batch: list[FoundImage] = []
    held = 0
    for found in images:
        batch.append(found)
        held += len(found.content) if isinstance(found.content, bytes) else 0
        if len(batch) == _BATCH_IMAGES or held >= _BATCH_BYTES:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _prepare(found: FoundImage, *, predictor: Predictor) -> Floats | str:
    """The preprocessed image, or why there is none."""
    if found.error or found.content is None:
        return found.error or "nothing to predict"
    try:
        return predictor.prepare(found.content)
    except (UserError, OSError) as error:
        return str(error)


def _rows(
    batch: Sequence[FoundImage],
    *,
    arrays: Sequence[Floats | str],
    predictor: Predictor,
    top_k: int,
) -> list[Prediction]:
    good = [array for array in arrays if not isinstance(array, str)]
    probabilities = iter(predictor.probabilities(np.stack(good)) if good else ())
    return [
        Prediction(source=found.source, error=array)
        if isinstance(array, str)
        else row_of(
            found,
            best=predictor.top_k(next(probabilities), k=top_k),
            engine=predictor.engine.name,
        )
        for found, array in zip(batch, arrays, strict=True)
    ]


def row_of(
    found: FoundImage, *, best: list[ClassProbability], engine: str | None = None
) -> Prediction:
    """The row of an image whose most probable classes are known, best first."""
    return Prediction(
        source=found.source,
        class_name=best[0].class_name,
        probability=best[0].probability,
        top_k=best,
        engine=engine,
    )


# --- prediction ---

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
    digest = hashlib.sha256(digest_of([metadata.files, program, top_k]).encode())
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
