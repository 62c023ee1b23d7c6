"""Predicting whatever `predict` is given, in this process: one row for each image.

One bad image is a row with an error, never the end of the others.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from darkroom.engines.protocol import Floats
from darkroom.errors import UserError
from darkroom.inputs.finding import count, images_of, look_at
from darkroom.inputs.found import FoundImage
from darkroom.prediction import ClassProbability, Prediction, Predictor
from darkroom.progress import SILENT, Progress

_BATCH_IMAGES = 32
_BATCH_BYTES = 64 * 2**20
"""Of encoded images that are held at a time; those of files do not count."""


def predict_sources(
    sources: Sequence[str], *, predictor: Predictor, top_k: int = 5, progress: Progress = SILENT
) -> list[Prediction]:
    """Predict images, folders, archives and http(s) URLs of them, in the order given.

    Folders are walked with all below them, in sorted order; hidden files, and files that
    are no images by their extension, are left out.
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
