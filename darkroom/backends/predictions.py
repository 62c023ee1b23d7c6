"""Predictions for many files: made in this process, and worded as a table."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from darkroom.base.files import spreadsheet_line
from darkroom.base.progress import SILENT, Progress
from darkroom.batch.prediction import predict_sources
from darkroom.models.bundle import Bundle
from darkroom.models.prediction import Prediction, Predictor

BatchPrediction: TypeAlias = Prediction
"""One row: `source` is the file's name as it was given; `error` says why there is no class."""

TOP_K = 5
"""Classes in a row, as `serve` answers when it is not asked for another number."""


def predict_batch(
    images: Sequence[Path], *, bundle: Bundle, top_k: int = TOP_K, progress: Progress = SILENT
) -> list[BatchPrediction]:
    """Classify files in this process, in the order given; unreadable ones are rows with an error.

    Args:
        top_k: classes in a row, the most probable first.

    Raises:
        UserError: the bundle cannot be used.
    """
    predictor = Predictor.load(bundle.folder)
    if predictor.fallback:
        progress.message(predictor.fallback)
    sources = [str(path) for path in images]
    return predict_sources(sources, predictor=predictor, top_k=top_k, progress=progress)


def as_csv(rows: Sequence[BatchPrediction], *, labels: Sequence[str] = ()) -> str:
    """Rows as `file,class,probability,top_k,error`; top_k is JSON.

    Args:
        labels: what each image shows; given, they are a last column.
    """
    lines = [_cells(row) for row in rows]
    names = _COLUMNS
    if labels:
        lines = [(*cells, label) for cells, label in zip(lines, labels, strict=True)]
        names = (*_COLUMNS, "label")
    return "".join(map(spreadsheet_line, [names, *lines]))


def engines_of(rows: Sequence[BatchPrediction]) -> str:
    """What ran the network, as the rows say; empty: they do not."""
    return ", ".join(dict.fromkeys(row.engine for row in rows if row.engine))


def share_correct(rows: Sequence[BatchPrediction], *, labels: Sequence[str]) -> float:
    """Share of the readable images whose label was predicted; 0 where none could be read."""
    right = [
        row.class_name == label for row, label in zip(rows, labels, strict=True) if not row.error
    ]
    return sum(right) / len(right) if right else 0.0


_COLUMNS: tuple[str, ...] = ("file", "class", "probability", "top_k", "error")


def _cells(row: BatchPrediction) -> tuple[object, ...]:
    best = {item.class_name: item.probability for item in row.top_k}
    return (
        row.source,
        row.class_name,
        row.probability,
        json.dumps(best, ensure_ascii=False) if best else None,
        row.error,
    )
