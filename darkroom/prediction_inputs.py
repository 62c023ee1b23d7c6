"""Predicting whatever `predict` is given: images, folders and URLs, one row each.

One bad image is a row with an error, never the end of the others.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from time import monotonic

import numpy as np
import requests

from darkroom.engines.protocol import Floats
from darkroom.errors import UserError
from darkroom.images import ImageError
from darkroom.prediction import ClassProbability, Prediction, Predictor
from darkroom.progress import SILENT, Progress
from darkroom.sources.image_folder import is_image_name

MAXIMUM_URL_BYTES = 25 * 10**6
_URL_SCHEMES = ("http://", "https://")
_CONNECT_AND_READ_SECONDS = (5, 10)
_DOWNLOAD_SECONDS = 30
_CHUNK_BYTES = 1 << 16
_BATCH = 32


@dataclass(frozen=True)
class _Input:
    """One image to be: `image` is a file, a URL, or nothing where `error` says why."""

    source: str
    image: Path | str | None = None
    error: str | None = None


def predict_sources(
    sources: Sequence[str], *, predictor: Predictor, top_k: int = 5, progress: Progress = SILENT
) -> list[Prediction]:
    """Predict images, folders of images and http(s) URLs, in the order given.

    Folders are walked with all below them, in sorted order; hidden files, and files that
    are no images by their extension, are left out.
    """
    inputs = (found for source in sources for found in _find(source))
    predictions: list[Prediction] = []
    with (
        progress.task("predicting") as task,
        ThreadPoolExecutor(predictor.threads) as pool,
    ):
        while batch := list(islice(inputs, _BATCH)):
            arrays = list(pool.map(lambda found: _prepare(found, predictor=predictor), batch))
            predictions += _rows(batch, arrays=arrays, predictor=predictor, top_k=top_k)
            task.advance(len(batch))
    return predictions


def _find(source: str) -> Iterator[_Input]:
    if source.startswith(_URL_SCHEMES):
        yield _Input(source, image=source)
        return
    path = Path(source).expanduser()
    if path.is_dir():
        yield from _find_in_folder(path)
    elif path.exists():
        yield _Input(source, image=path)
    else:
        yield _Input(source, error="no such file or folder")


def _find_in_folder(folder: Path) -> Iterator[_Input]:
    files = sorted(
        path
        for path in folder.rglob("*")
        if is_image_name(path.name) and path.is_file() and not _hidden(path, below=folder)
    )
    if not files:
        yield _Input(str(folder), error="the folder holds no images")
    for path in files:
        yield _Input(str(path), image=path)


def _hidden(path: Path, *, below: Path) -> bool:
    parts = path.relative_to(below).parts
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)


def _prepare(found: _Input, *, predictor: Predictor) -> Floats | str:
    """The preprocessed image, or why there is none."""
    try:
        if found.error or found.image is None:
            return found.error or "nothing to predict"
        content = download(found.image) if isinstance(found.image, str) else found.image
        return predictor.prepare(content)
    except requests.RequestException as error:
        return f"cannot be fetched: {_reason(error)}"
    except (UserError, OSError) as error:
        return str(error)


def download(url: str) -> bytes:
    """Fetch an image, within limits of size and time.

    Raises:
        requests.RequestException: unreachable, or answered with an error.
        ImageError: larger than 25 MB, or not complete within 30 s.
    """
    started = monotonic()
    content = bytearray()
    with requests.get(url, stream=True, timeout=_CONNECT_AND_READ_SECONDS) as response:
        response.raise_for_status()
        for chunk in response.iter_content(_CHUNK_BYTES):
            content += chunk
            if len(content) > MAXIMUM_URL_BYTES:
                raise ImageError(f"larger than {MAXIMUM_URL_BYTES // 10**6} MB")
            if monotonic() - started > _DOWNLOAD_SECONDS:
                raise ImageError(f"not fetched within {_DOWNLOAD_SECONDS} s")
    return bytes(content)


def _reason(error: requests.RequestException) -> str:
    if error.response is not None:
        return f"HTTP status {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return "timed out"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return str(error)


def _rows(
    batch: Sequence[_Input],
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
        else _row(found.source, best=predictor.top_k(next(probabilities), k=top_k))
        for found, array in zip(batch, arrays, strict=True)
    ]


def _row(source: str, *, best: list[ClassProbability]) -> Prediction:
    return Prediction(
        source=source,
        class_name=best[0].class_name,
        probability=best[0].probability,
        top_k=best,
    )
