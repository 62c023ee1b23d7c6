"""How good a batch is, where labels are known."""

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from darkroom.batch.rows import BatchRow, BatchTable
from darkroom.evaluation.metrics import confusion_counts, confusion_metrics


class BatchScore(BaseModel):
    """Counts, and metrics over the images that are labelled and could be read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    images: int
    unreadable: int
    labelled: int
    """Readable images with a label that the model knows."""
    unknown_labels: int
    """Readable images with a label that it does not."""
    correct: int
    metrics: dict[str, float]
    """Accuracy, F1 and their kin; empty where nothing is labelled."""


def score(table: BatchTable) -> BatchScore:
    """Compare classes with labels. Labels are folders named like the model's classes."""
    readable = [row for row in table.rows if row.correct is not None]
    rows = [row for row in readable if row.label in table.classes]
    return BatchScore(
        images=len(table.rows),
        unreadable=sum(row.error is not None for row in table.rows),
        labelled=len(rows),
        unknown_labels=len(readable) - len(rows),
        correct=sum(row.correct is True for row in rows),
        metrics=_metrics(rows, classes=table.classes) if rows else {},
    )


def _metrics(rows: Sequence[BatchRow], *, classes: Sequence[str]) -> dict[str, float]:
    position = {name: index for index, name in enumerate(classes)}
    pairs = [
        (position[row.label], position[row.class_name])
        for row in rows
        if row.label and row.class_name
    ]
    labels, predicted = np.array(pairs, dtype=np.int64).T
    confusion = confusion_counts(labels, predicted, classes=len(classes))
    return {name: float(value) for name, value in confusion_metrics(confusion).items()}
