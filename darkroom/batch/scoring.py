"""How good a batch is, where labels are known."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from darkroom.batch.table import BatchTable
from darkroom.evaluation.metrics import confusion_metrics

Pairs = Counter[tuple[str, str]]
"""Images by label and predicted class."""


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
    """Accuracy, F1 and their kin over `labelled`; empty where nothing is."""


def score(table: BatchTable) -> BatchScore:
    """Compare classes with labels."""
    images, unreadable, pairs = 0, 0, Pairs()
    for row in table.rows():
        images += 1
        unreadable += row.error is not None
        if row.label is not None and row.class_name is not None:
            pairs[row.label, row.class_name] += 1
    classes = table.about.classes
    known = Pairs({pair: count for pair, count in pairs.items() if pair[0] in classes})
    return BatchScore(
        images=images,
        unreadable=unreadable,
        labelled=known.total(),
        unknown_labels=pairs.total() - known.total(),
        correct=sum(count for (label, found), count in known.items() if label == found),
        metrics=_metrics(known, classes=classes) if known else {},
    )


def _metrics(pairs: Mapping[tuple[str, str], int], *, classes: Sequence[str]) -> dict[str, float]:
    position = {name: index for index, name in enumerate(classes)}
    confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
    for (label, found), count in pairs.items():
        confusion[position[label], position[found]] = count
    return {name: float(value) for name, value in confusion_metrics(confusion).items()}
