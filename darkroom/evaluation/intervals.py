"""Confidence intervals of the metrics: how far they would move with other test images.

    a proportion              Wilson's interval, with Clopper and Pearson's bound where it fails
    averages over classes     the same, of as many images as would vary that much
    log loss                  Student's, of its logarithm
    calibration error         the errors under which what was seen is not unusual, by simulation

A metric that no method covers at this number of images has no interval, and `NO_INTERVAL` says
why: better none than a wrong one. What each covers is measured by
benchmarks/interval_coverage.py and shown in docs/evaluation.md.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, ndtri, stdtrit

from darkroom.evaluation.metrics import (
    Floats,
    Integers,
    confidence_bins,
    confusion_counts,
    losses,
)

Interval = tuple[float, float]

NO_INTERVAL = {
    **dict.fromkeys(
        ("recall_macro", "precision_macro", "f1_macro", "precision_weighted"),
        "too few images: a class was never predicted or never occurs, or there are fewer than "
        "five images a class",
    ),
    "log_loss": "fewer than five mistakes, which decide the mean",
}
"""Why a metric may have no interval."""

_FEW_TRIALS = 20
_FEW_OF_A_KIND = 3
"""Wilson's bound on the side of so few successes or failures covers as little as 84 %."""
_IMAGES_A_CLASS = 5
_MISTAKES = 5
_PSEUDO_IMAGES = 2.0
"""By which a class's recall is drawn to that of all: else three images that are right, or
wrong, together say that they always are."""
_SCALES = np.concatenate([[0], np.geomspace(0.05, 1, 10), np.linspace(1.1, 2.5, 8), [3, 4, 6, 10]])
_GAPS = np.concatenate([[0], np.geomspace(0.002, 1, 20)])
"""Strengths of miscalibration that are tried."""
_HALVINGS = 4
"""Of the steps between two of them, at either end of those that are possible."""


@dataclass(frozen=True)
class ClassIntervals:
    """Of one class's scores; None: the score's denominator is zero."""

    precision: Interval | None
    recall: Interval | None
    f1: Interval | None


def proportion_interval(successes: float, trials: float, *, confidence: float) -> Interval:
    """Of a proportion; numbers need not be whole, where they stand for an effective size.

    Wilson, Probable inference, JASA 22, 1927, covers well except near 0 and 1, where its bound
    on the near side is taken from Clopper and Pearson, Biometrika 26, 1934; both bounds are
    below 20 trials. Compared with the others by Brown, Cai and DasGupta, Interval estimation
    for a binomial proportion, Statistical Science 16, 2001.
    """
    tail = (1 - confidence) / 2
    failures = max(trials - successes, 0.0)
    low = float(betaincinv(successes, failures + 1, tail)) if successes > 0 else 0.0
    high = float(betaincinv(successes + 1, failures, 1 - tail)) if failures > 0 else 1.0
    if trials < _FEW_TRIALS:
        return low, high
    z, share = float(-ndtri(tail)), successes / trials
    middle = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z * np.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2) / (1 + z**2 / trials)
    wilson = max(0.0, float(middle - half)), min(1.0, float(middle + half))
    return (
        min(low, wilson[0]) if successes <= _FEW_OF_A_KIND else wilson[0],
        max(high, wilson[1]) if failures <= _FEW_OF_A_KIND else wilson[1],
    )


def difference_interval(
    before: float, after: float, *, trials: tuple[float, float], confidence: float
) -> Interval:
    """The interval of the difference of two independent proportions, `after` less `before`.

    From the intervals of both by Newcombe, Interval estimation for the difference between
    independent proportions, Statistics in Medicine 17, 1998, method 10. Where both are of the
    same images it is too wide, rather than too narrow: the same ones are easy for both.

    Args:
        before, after: the proportions, in [0, 1].
        trials: images behind `before` and behind `after`; of an average over classes, the effective
            number, which need not be whole.
        confidence: such as 0.95.
    """
    low_0, high_0 = proportion_interval(before * trials[0], trials[0], confidence=confidence)
    low_1, high_1 = proportion_interval(after * trials[1], trials[1], confidence=confidence)
    difference = after - before
    return (
        difference - float(np.hypot(after - low_1, high_0 - before)),
        difference + float(np.hypot(high_1 - after, before - low_0)),
    )


def class_intervals(
    confusion: NDArray[np.int64], *, confidence: float
) -> tuple[ClassIntervals, ...]:
    """Of precision, recall and F1 of each class, from (C, C) counts.

    Recall is a proportion of the class's images, precision of those taken for it: their number
    is random, but given it, each is right with the same probability. F1 is 2J / (1 + J) of J,
    the proportion of hits among the images that are of the class or taken for it.
    """
    hits = np.diagonal(confusion)
    actual, predicted = confusion.sum(axis=1), confusion.sum(axis=0)

    def of(hit: int, images: int) -> Interval | None:
        return proportion_interval(hit, images, confidence=confidence) if images else None

    found = []
    for hit, images, taken in zip(hits.tolist(), actual.tolist(), predicted.tolist(), strict=True):
        shared = of(hit, images + taken - hit)
        f1 = None if shared is None else (_f1_of(shared[0]), _f1_of(shared[1]))
        found.append(ClassIntervals(precision=of(hit, taken), recall=of(hit, images), f1=f1))
    return tuple(found)


def metric_intervals(
    labels: Integers,
    probabilities: Floats,
    *,
    values: Mapping[str, float],
    samples: int,
    confidence: float,
    calibration_bins: int,
    seed: int,
) -> dict[str, Interval | None]:
    """Of metrics of N images; an interval always holds the metric's own value.

    Args:
        labels: (N,) integers.
        probabilities: (N, C), rows that sum to one.
        values: the metrics' values on the N images, by name.
        samples: simulated test sets for each strength of miscalibration.
        confidence: coverage of the intervals, between 0 and 1.
    """
    images, classes = probabilities.shape
    predicted = probabilities.argmax(axis=1)
    confusion = confusion_counts(labels, predicted, classes=classes)
    averages = _average_intervals(confusion, confidence=confidence)
    found: dict[str, Interval | None] = {}
    for name, value in values.items():
        interval: Interval | None
        if name in ("accuracy", "recall_weighted", "top5_accuracy"):
            interval = proportion_interval(value * images, images, confidence=confidence)
        elif name == "log_loss":
            interval = _log_loss_interval(
                losses(labels, probabilities),
                mistakes=int((predicted != labels).sum()),
                confidence=confidence,
            )
        elif name == "calibration_error":
            bins = _Bins.of(labels, probabilities, bins=calibration_bins)
            generator = np.random.default_rng(seed)
            interval = bins.interval(samples=samples, confidence=confidence, generator=generator)
        else:
            interval = averages[name]
        held = None if interval is None else (min(interval[0], value), max(interval[1], value))
        found[name] = held
    return found


def _f1_of(jaccard: float) -> float:
    return 2 * jaccard / (1 + jaccard)


# Averages over classes.


def _average_intervals(
    confusion: NDArray[np.int64], *, confidence: float
) -> dict[str, Interval | None]:
    """Of the averages over classes, by their variance to first order in the counts.

    A binomial proportion of `effective` images would vary as much: its interval is taken, as
    Korn and Graubard, Confidence intervals for proportions with small expected number of
    positive counts, Survey Methodology 24, 1998, do for samples of surveys. Their bias, which
    does not fall with the number of classes, is subtracted to second order.
    """
    actual, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    counted = actual + predicted > 0
    kept = confusion[np.ix_(counted, counted)].astype(np.float64)
    images = kept.sum()
    actual, predicted = kept.sum(axis=1), kept.sum(axis=0)
    smoothed = _smoothed(kept)
    own, varied = _averages(kept / images), _averages(smoothed)
    bias = _bias(kept)
    is_enough = np.minimum(actual, predicted).min() >= 1 and actual.mean() >= _IMAGES_A_CLASS
    found: dict[str, Interval | None] = {}
    for name, (value, gradient) in varied.items():
        if name in NO_INTERVAL and not is_enough:
            found[name] = None
            continue
        variance = _variance(gradient, smoothed=smoothed, actual=actual)
        effective = value * (1 - value) / variance if variance > 0 else images
        middle = float(np.clip(own[name][0] - bias.get(name, 0.0), 0, 1))
        found[name] = proportion_interval(middle * effective, effective, confidence=confidence)
    return found


def _smoothed(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """(K, K) shares of all images, as if each class had two images more, like all others."""
    classes, images = len(counts), counts.sum()
    actual, predicted = counts.sum(axis=1), counts.sum(axis=0)
    pooled = float(np.clip(np.trace(counts), 0.5, images - 0.5) / images)
    if classes == 1:
        return np.ones((1, 1))
    weights = np.tile(actual + predicted, (classes, 1))
    np.fill_diagonal(weights, 0)
    prior = (1 - pooled) * weights / weights.sum(axis=1, keepdims=True)
    np.fill_diagonal(prior, pooled)
    rows = (counts + _PSEUDO_IMAGES * prior) / (actual + _PSEUDO_IMAGES)[:, None]
    return np.asarray(rows * (actual / images)[:, None])


def _averages(shares: NDArray[np.float64]) -> dict[str, tuple[float, NDArray[np.float64]]]:
    """Each average of (K, K) shares of images, and its derivatives by them."""
    actual, predicted, hits = shares.sum(axis=1), shares.sum(axis=0), np.diagonal(shares)
    seen = (actual > 0) / max((actual > 0).sum(), 1)
    counted = np.full(len(shares), 1 / len(shares))

    def averaged(
        weights: NDArray[np.float64], *, recall: float, precision: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Class scores hits / (recall * actual + precision * predicted), and derivatives."""
        size = recall * actual + precision * predicted
        inverse = np.divide(1, size, out=np.zeros_like(size), where=size > 0)
        scores = hits * inverse
        slope = weights * scores * inverse
        gradient = np.diag(weights * inverse)
        gradient -= recall * slope[:, None] + precision * slope[None, :]
        return scores, gradient

    found = {}
    for name, part in (("recall", (1.0, 0.0)), ("precision", (0.0, 1.0)), ("f1", (0.5, 0.5))):
        scores, gradient = averaged(counted, recall=part[0], precision=part[1])
        found[f"{name}_macro"] = float(scores.mean()), gradient
        if name != "recall":
            _, gradient = averaged(actual, recall=part[0], precision=part[1])
            value = float((actual * scores).sum())
            found[f"{name}_weighted"] = value, gradient + scores[:, None]
        else:
            _, gradient = averaged(seen, recall=1.0, precision=0.0)
            found["balanced_accuracy"] = float((seen * scores).sum()), gradient
    return found


def _variance(
    gradient: NDArray[np.float64], *, smoothed: NDArray[np.float64], actual: NDArray[np.float64]
) -> float:
    """Of an average over images drawn at random: within classes, and of their numbers."""
    images = actual.sum()
    shares = actual / images
    of_class = smoothed / np.where(shares > 0, shares, 1)[:, None]
    means = (of_class * gradient).sum(axis=1)
    within = (of_class * gradient**2).sum(axis=1) - means**2
    # Drawing recalls together takes away some of their variance, but not all.
    kept = actual / (actual + _PSEUDO_IMAGES)
    within /= 1 - np.divide(kept**2, actual, out=np.zeros_like(kept), where=actual > 0)
    between = (shares * means**2).sum() - (shares * means).sum() ** 2
    return float(((shares * within).sum() + between) / images)


def _bias(counts: NDArray[np.float64]) -> dict[str, float]:
    """To second order in 1/N, with counts that vary as Poisson's."""
    actual, predicted, hits = counts.sum(axis=1), counts.sum(axis=0), np.diagonal(counts)
    f1 = 2 * hits / (actual + predicted)
    precision = np.divide(hits, predicted, out=np.zeros_like(hits), where=predicted > 0)
    return {
        "f1_macro": float(-(f1 * (1 - f1) / (actual + predicted)).mean()),
        "precision_weighted": float((precision * (1 - precision)).sum() / counts.sum()),
    }


# Log loss and calibration.


def _log_loss_interval(
    losses: NDArray[np.float64], *, mistakes: int, confidence: float
) -> Interval | None:
    """Student's interval of the logarithm: a mean of few large values is skewed to the right."""
    images, mean = len(losses), float(losses.mean())
    if mistakes < _MISTAKES or mean <= 0:
        return None
    error = float(losses.std(ddof=1)) / np.sqrt(images) / mean
    factor = float(np.exp(stdtrit(images - 1, (1 + confidence) / 2) * error))
    return mean / factor, mean * factor


@dataclass(frozen=True)
class _Bins:
    """Images by top probability; empty bins are left out."""

    images: NDArray[np.int64]
    confidence: NDArray[np.float64]
    """Mean top probability of each bin's images."""
    right: NDArray[np.int64]
    """Images of each bin whose class was predicted."""

    @classmethod
    def of(cls, labels: Integers, probabilities: Floats, *, bins: int) -> "_Bins":
        confidence = probabilities.max(axis=1).astype(np.float64)
        index = confidence_bins(confidence, bins=bins)
        images = np.bincount(index, minlength=bins)
        total = np.bincount(index, weights=confidence, minlength=bins)
        right = np.bincount(index[probabilities.argmax(axis=1) == labels], minlength=bins)
        kept = images > 0
        return cls(images[kept], total[kept] / images[kept], right[kept])

    def error(self, right: NDArray[np.floating] | Integers) -> NDArray[np.float64]:
        """Calibration errors of (..., B) numbers of right predictions."""
        gaps = np.abs(right - self.images * self.confidence).sum(axis=-1)
        return np.asarray(gaps / self.images.sum())

    def interval(
        self, *, samples: int, confidence: float, generator: np.random.Generator
    ) -> Interval:
        """The true errors under which the one that was seen lies within the central share.

        Absolute values bias the error upwards, by more than itself where a model is calibrated,
        so that resampling misses the truth. Instead, test sets are simulated with gaps of
        several shapes, at all strengths: those that were seen, less their standard errors; the
        largest of them alone, which leaves most to chance; the curve of Cox, Two further
        applications of a model for binary regression, Biometrika 45, 1958; and overconfidence
        by the same in all bins.
        """
        seen = float(self.error(self.right))
        accuracy = (self.right + self.confidence) / (self.images + 1)
        gaps = accuracy - self.confidence
        noise = np.sqrt(accuracy * (1 - accuracy) / self.images)
        weight = self.images * np.abs(gaps)
        shapes = (
            (gaps * (weight == weight.max()), _SCALES),
            (np.sign(gaps) * np.maximum(np.abs(gaps) - noise, 0), _SCALES),
            (self._cox() - self.confidence, _SCALES),
            (-np.ones_like(gaps), _GAPS),
        )
        tails = [(1 - confidence) / 2, (1 + confidence) / 2]
        size = (samples, len(self.images))

        def true_error(shape: NDArray[np.float64], strength: float) -> float | None:
            """The error of a model with such gaps; None: what was seen is unusual for it."""
            accuracy = np.clip(self.confidence + strength * shape, 0, 1)
            errors = self.error(generator.binomial(self.images, accuracy, size=size))
            low, high = np.quantile(errors, tails)
            is_usual = low - 1e-12 <= seen <= high + 1e-12 or (not strength and seen < low)
            return float(self.error(self.images * accuracy)) if is_usual else None

        possible = [
            error
            for shape, strengths in shapes
            for error in _within(strengths.tolist(), of=partial(true_error, shape))
        ]
        return (min(possible), max(possible)) if possible else (seen, seen)

    def _cox(self) -> NDArray[np.float64]:
        """Accuracy by bin, as logistic regression on the confidence's log odds has it."""
        odds = np.clip(self.confidence, 1e-6, 1 - 1e-6)
        inputs = np.stack([np.ones_like(odds), np.log(odds / (1 - odds))], axis=1)
        start = np.array([0.0, 1.0])
        found = start.copy()
        for _ in range(25):  # Newton's steps, with a penalty that keeps them finite
            accuracy = 1 / (1 + np.exp(-inputs @ found))
            weights = self.images * accuracy * (1 - accuracy)
            slope = inputs.T @ (self.right - self.images * accuracy) - (found - start)
            curvature = (inputs * weights[:, None]).T @ inputs + np.eye(2)
            step = np.clip(np.linalg.solve(curvature, slope), -2, 2)
            found += step
            if np.abs(step).max() < 1e-8:
                break
        return np.asarray(1 / (1 + np.exp(-inputs @ found)))


def _within(strengths: list[float], *, of: Callable[[float], float | None]) -> list[float]:
    """Errors of the strengths that are possible, and of where they begin and end, by halving."""
    found = [of(strength) for strength in strengths]
    errors = [error for error in found if error is not None]
    for (one, inner), (other, outer) in pairwise(zip(strengths, found, strict=True)):
        if (inner is None) == (outer is None):
            continue
        possible, unusual = (one, other) if outer is None else (other, one)
        for _ in range(_HALVINGS):
            middle = (possible + unusual) / 2
            error = of(middle)
            if error is None:
                unusual = middle
            else:
                possible = middle
                errors.append(error)
    return errors
