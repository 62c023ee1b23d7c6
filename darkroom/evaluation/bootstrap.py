"""Confidence intervals of the metrics, by resampling the images.

One set of resamples serves all metrics. A resample is held as the number of times that
each image was drawn, so every metric is a function of sums over images:

    confusion counts        accuracy, precision, recall and F1 in all their averages
    gaps by confidence bin  calibration error
    losses, top-5 hits      log loss, top-5 accuracy
"""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from darkroom.evaluation.metrics import (
    Floats,
    Integers,
    confidence_bins,
    confusion_metrics,
    losses,
    top_k_hits,
    weighted_metrics,
)

Interval = tuple[float, float]

_CHUNK_ELEMENTS = 4_000_000
"""Numbers in the largest array of a chunk of resamples: 32 MB as float64."""


def bootstrap_intervals(
    labels: Integers,
    probabilities: Floats,
    *,
    values: Mapping[str, float],
    samples: int,
    confidence: float,
    calibration_bins: int,
    seed: int,
) -> dict[str, Interval]:
    """Confidence intervals of metrics, over `samples` resamples of the N images.

    The percentile method: Efron, Bootstrap methods: another look at the jackknife, The
    Annals of Statistics 7, 1979; Efron and Tibshirani, An Introduction to the Bootstrap,
    1993, chapter 13. The calibration error takes the basic method instead (Davison and
    Hinkley, Bootstrap Methods and their Application, 1997, section 5.2), cut off at zero:
    absolute values bias it upwards, in a resample once more than in the test set, so that
    percentiles miss the truth of a well calibrated model almost always.

    An interval always contains the metric's own value. Where a test set shows no error at
    all, no resample can either, and the interval has no width.

    Args:
        labels: (N,) integers.
        probabilities: (N, C), rows that sum to one.
        values: the metrics' values on the N images, by name.
        confidence: coverage of the intervals, between 0 and 1.
    """
    terms = _Terms(labels, probabilities, bins=calibration_bins)
    drawn = [terms.metrics(draws) for draws in _resamples(terms, samples=samples, seed=seed)]
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    intervals = {}
    for name, value in values.items():
        low, high = np.quantile(np.concatenate([chunk[name] for chunk in drawn]), tails)
        if name == "calibration_error":
            low, high = max(0.0, 2 * value - high), min(1.0, 2 * value - low)
        intervals[name] = (min(float(low), value), max(float(high), value))
    return intervals


class _Terms:
    """What each image adds to the sums that the metrics are made of."""

    def __init__(self, labels: Integers, probabilities: Floats, *, bins: int) -> None:
        predicted = probabilities.argmax(axis=1)
        cells = labels.astype(np.int64) * probabilities.shape[1] + predicted
        # Images of one confusion cell lie side by side, so that a sum over a slice counts them.
        order = np.argsort(cells, kind="stable")
        self.images, self.classes = probabilities.shape
        self._cells, self._starts = np.unique(cells[order], return_index=True)
        self._sums = _additive_terms(labels[order], probabilities[order], bins=bins)
        self._bins = bins

    def metrics(self, draws: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """The metrics of (R, N) numbers of draws; each (R,)."""
        counts = np.zeros((len(draws), self.classes**2), dtype=np.int64)
        counts[:, self._cells] = np.add.reduceat(draws, self._starts, axis=1)
        confusion = counts.reshape(-1, self.classes, self.classes)
        means = draws @ self._sums / self.images
        return {
            **confusion_metrics(confusion),
            **weighted_metrics(confusion),
            "top5_accuracy": means[:, 0],
            "log_loss": means[:, 1],
            "calibration_error": np.abs(means[:, 2:]).sum(axis=1),
        }


def _additive_terms(labels: Integers, probabilities: Floats, *, bins: int) -> NDArray[np.float64]:
    """(N, 2 + bins): top-5 hit, loss, and the gap of correctness to confidence in its bin."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    terms = np.zeros((len(labels), 2 + bins))
    terms[:, 0] = top_k_hits(labels, probabilities, k=5)
    terms[:, 1] = losses(labels, probabilities)
    column = 2 + confidence_bins(confidence, bins=bins)
    terms[np.arange(len(labels)), column] = (probabilities.argmax(axis=1) == labels) - confidence
    return terms


def _resamples(terms: _Terms, *, samples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Yield (R, N) numbers of draws, in chunks that bound the memory, `samples` in all."""
    generator = np.random.default_rng(seed)
    images = terms.images
    chunk = max(1, _CHUNK_ELEMENTS // max(images, terms.classes**2))
    for start in range(0, samples, chunk):
        rows = min(chunk, samples - start)
        drawn = generator.integers(images, size=(rows, images))
        drawn += np.arange(rows)[:, None] * images
        counts = np.bincount(drawn.ravel(), minlength=rows * images)
        yield counts.reshape(rows, images).astype(np.float64)
