"""Classification metrics from labels and probabilities, in numpy.

All take `labels`, (N,) integers, and `probabilities`, (N, C) floats whose rows sum to one.
Precision, recall and F1 of a class that never occurs and is never predicted are left out
of the macro averages; where a denominator alone is zero the value is zero, as in
scikit-learn with zero_division=0.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Integers = NDArray[np.integer]

_MIN_PROBABILITY = 1e-15


def confusion_counts(labels: Integers, predicted: Integers, *, classes: int) -> NDArray[np.int64]:
    """(C, C) counts: rows are actual classes, columns predicted ones."""
    flat = labels.astype(np.int64) * classes + predicted
    counts: NDArray[np.int64] = np.bincount(flat, minlength=classes * classes)
    return counts.reshape(classes, classes)


def class_scores(confusion: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Precision, recall and F1 by class, from (..., C, C) counts; each (..., C)."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1).astype(np.float64)
    actual, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    return {
        "precision": _ratio(hits, predicted),
        "recall": _ratio(hits, actual),
        "f1": _ratio(2 * hits, actual + predicted),
    }


def headline_metrics(
    labels: Integers, probabilities: Floats, *, calibration_bins: int = 15
) -> dict[str, float]:
    """The metrics named in `config.Metric`."""
    confusion = confusion_counts(
        labels, probabilities.argmax(axis=1), classes=probabilities.shape[1]
    )
    return {
        **{name: float(value) for name, value in confusion_metrics(confusion).items()},
        "log_loss": float(losses(labels, probabilities).mean()),
        "calibration_error": calibration_error(labels, probabilities, bins=calibration_bins),
    }


def confusion_metrics(confusion: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """The headline metrics that follow from (..., C, C) counts; each of shape (...)."""
    scores = class_scores(confusion)
    actual = confusion.sum(axis=-1)
    seen = actual > 0
    counted = seen | (confusion.sum(axis=-2) > 0)
    hits = np.diagonal(confusion, axis1=-2, axis2=-1).sum(axis=-1)
    return {
        "accuracy": _ratio(hits.astype(np.float64), actual.sum(axis=-1)),
        "balanced_accuracy": _mean_where(scores["recall"], seen),
        "f1_macro": _mean_where(scores["f1"], counted),
        "precision_macro": _mean_where(scores["precision"], counted),
        "recall_macro": _mean_where(scores["recall"], counted),
    }


def weighted_metrics(confusion: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Class scores of (..., C, C) counts, averaged by the classes' share of the images."""
    actual = confusion.sum(axis=-1)
    share = _ratio(actual.astype(np.float64), actual.sum(axis=-1, keepdims=True))
    return {
        f"{name}_weighted": np.asarray((values * share).sum(axis=-1))
        for name, values in class_scores(confusion).items()
    }


def top_k_hits(labels: Integers, probabilities: Floats, *, k: int) -> NDArray[np.bool_]:
    """(N,) whether the actual class is among the `k` most probable; ties as in argmax."""
    actual = labels[:, None]
    likelihood = np.take_along_axis(probabilities, actual, axis=1)
    earlier = np.arange(probabilities.shape[1]) < actual
    before = (probabilities > likelihood) | ((probabilities == likelihood) & earlier)
    return np.asarray(before.sum(axis=1) < k)


def losses(labels: Integers, probabilities: Floats) -> NDArray[np.float64]:
    """(N,) negative log likelihoods in nats; probabilities are clipped at 1e-15."""
    likelihood = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return np.asarray(-np.log(likelihood.clip(_MIN_PROBABILITY, 1)))


def calibration_error(labels: Integers, probabilities: Floats, *, bins: int) -> float:
    """Expected calibration error with equal-width bins of the top probability.

    Guo et al., On Calibration of Modern Neural Networks, ICML 2017, equation 3.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    correct = probabilities.argmax(axis=1) == labels
    gap = np.bincount(
        confidence_bins(confidence, bins=bins), weights=correct - confidence, minlength=bins
    )
    return float(np.abs(gap).sum() / len(labels))


def confidence_bins(confidence: Floats, *, bins: int) -> NDArray[np.int64]:
    """(N,) index of the equal-width bin, [low, high) but for the last, which holds 1."""
    return np.minimum((confidence * bins).astype(np.int64), bins - 1)


def _ratio(numerator: NDArray[np.float64], denominator: NDArray[np.int64]) -> NDArray[np.float64]:
    result = np.zeros(np.shape(numerator), dtype=np.float64)
    return np.divide(numerator, denominator, out=result, where=denominator > 0)


def _mean_where(values: NDArray[np.float64], chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.asarray((values * chosen).sum(axis=-1) / chosen.sum(axis=-1).clip(1))
