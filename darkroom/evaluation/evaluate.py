"""What a model's probabilities are worth: metrics with intervals, confusions, calibration."""

import base64
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from darkroom.base.errors import DarkroomError, UserError
from darkroom.config import DeploymentConfig, EvaluationConfig
from darkroom.config.sections import Split, natural_direction
from darkroom.data.dataset import ImageRecord
from darkroom.evaluation.intervals import class_intervals, metric_intervals
from darkroom.evaluation.metrics import (
    class_scores,
    confidence_bins,
    confusion_counts,
    headline_metrics,
    top_k_hits,
    weighted_metrics,
)

# --- evaluate ---

MIN_CLASSES_FOR_TOP5 = 6
"""With five classes or fewer the actual one is always among the first five."""

_CONFUSED_PAIRS = 12
_NAMED_CLASSES = 10


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class MetricValue(_Record):
    """A metric and its confidence interval."""

    value: float
    interval: tuple[float, float] | None
    """None: no method covers the metric at this number of images (intervals.NO_INTERVAL)."""


class ClassScore(_Record):
    """The scores of one class; all zero where the split holds none of it."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int
    """Images of this class."""
    predicted: int
    """Images taken for this class."""
    precision_interval: tuple[float, float] | None = None
    """None: no image was taken for this class."""
    recall_interval: tuple[float, float] | None = None
    """None: no image is of this class."""
    f1_interval: tuple[float, float] | None = None
    """None: neither."""


class ConfusedPair(_Record):
    """Images of one class that were taken for another."""

    actual: str
    predicted: str
    count: int
    share: float
    """Of the images of the actual class."""


class ReliabilityBin(_Record):
    """Images whose top probability lies in [low, high)."""

    low: float
    high: float
    count: int
    confidence: float
    """Mean top probability; the middle of the bin where it is empty."""
    accuracy: float
    """Share of correct predictions; 0 where the bin is empty."""


class Prediction(_Record):
    """The model's answer to one image."""

    path: str
    """Relative to the data set's root."""
    actual: str
    predicted: str
    probability: float
    """Of the predicted class."""
    correct: bool


class Evaluation(_Record):
    """A model judged on one split; JSON by `model_dump_json`."""

    split: Split
    classes: tuple[str, ...]
    """In the order of the probabilities' columns and of the confusion matrix."""
    confidence_level: float
    bootstrap_samples: int
    engine: str = ""
    """What ran the network; empty: not said."""
    engine_fallback: str = ""
    """Why it was not the engine that the bundle was compiled for; empty: it was."""
    metrics: dict[str, MetricValue]
    """Those of `config.Metric`, the averages weighted by support, and `top5_accuracy` from
    six classes on."""
    per_class: tuple[ClassScore, ...]
    confusion: tuple[tuple[int, ...], ...]
    """Images by actual (row) and predicted class (column)."""
    confused_pairs: tuple[ConfusedPair, ...]
    """The most frequent first, at most twelve."""
    reliability: tuple[ReliabilityBin, ...]
    predictions: tuple[Prediction, ...]
    """In the order of the records that were evaluated."""
    encoded_probabilities: str
    """(N, C) little-endian float32, row by row, in base64; see `probabilities`."""

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """(N, C) exactly as they were evaluated, in the order of `predictions`."""
        flat = np.frombuffer(base64.b64decode(self.encoded_probabilities), dtype="<f4")
        return flat.reshape(len(self.predictions), len(self.classes))

    def values(self) -> dict[str, float]:
        """The metrics without their intervals."""
        return {name: metric.value for name, metric in self.metrics.items()}


def evaluate(
    probabilities: NDArray[np.floating],
    *,
    records: Sequence[ImageRecord],
    classes: Sequence[str],
    config: EvaluationConfig,
    seed: int,
) -> Evaluation:
    """Judge a model by its (N, C) probabilities of the N records' images.

    A class that no record belongs to counts in balanced accuracy not at all, and in the macro
    averages of precision, recall and F1, with 0, when an image was taken for it: as
    scikit-learn has it.

    Args:
        classes: C names, in the order of the columns.
        seed: of the simulated test sets behind the calibration error's interval.

    Raises:
        UserError: no records, or records of classes that the model does not know.
        DarkroomError: probabilities that are not finite, as those of a diverged model.
    """
    labels = _labels(records, classes=classes)
    given = _checked(probabilities, shape=(len(records), len(classes)))
    confusion = confusion_counts(labels, given.argmax(axis=1), classes=len(classes))
    return Evaluation(
        split=records[0].split,
        classes=tuple(classes),
        confidence_level=config.confidence,
        bootstrap_samples=config.bootstrap_samples,
        metrics=_metrics(labels, given, confusion=confusion, config=config, seed=seed),
        per_class=_per_class(confusion, classes=classes, confidence=config.confidence),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        confused_pairs=_confused_pairs(confusion, classes=classes),
        reliability=_reliability(labels, given, bins=config.calibration_bins),
        predictions=_predictions(given, records=records, classes=classes),
        encoded_probabilities=base64.b64encode(given.astype("<f4").tobytes()).decode("ascii"),
    )


def _labels(records: Sequence[ImageRecord], *, classes: Sequence[str]) -> NDArray[np.int64]:
    if not records:
        raise UserError(
            "there are no images to evaluate the model on: raise data.test_fraction, "
            "or give the data set a test split"
        )
    positions = {name: index for index, name in enumerate(classes)}
    if unknown := sorted({record.label for record in records} - positions.keys()):
        raise UserError(
            f"the data set has classes that the model does not know: {_some(unknown)}; "
            f"the model knows {_some(list(classes))}: train it on this data set"
        )
    return np.array([positions[record.label] for record in records], dtype=np.int64)


def _some(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_NAMED_CLASSES])
    more = len(names) - _NAMED_CLASSES
    return f"{shown} and {more} more" if more > 0 else shown


def _checked(
    probabilities: NDArray[np.floating], *, shape: tuple[int, int]
) -> NDArray[np.floating]:
    if probabilities.shape != shape:
        raise ValueError(f"probabilities of shape {probabilities.shape}, not {shape}")
    if not np.isfinite(probabilities).all():
        raise DarkroomError(
            "the model's probabilities are not finite numbers: its training diverged; "
            "lower training.learning_rate, or set training.gradient_clip"
        )
    return probabilities


def _metrics(
    labels: NDArray[np.int64],
    probabilities: NDArray[np.floating],
    *,
    confusion: NDArray[np.int64],
    config: EvaluationConfig,
    seed: int,
) -> dict[str, MetricValue]:
    values = headline_metrics(labels, probabilities, calibration_bins=config.calibration_bins)
    values |= {name: float(value) for name, value in weighted_metrics(confusion).items()}
    if len(confusion) >= MIN_CLASSES_FOR_TOP5:
        values["top5_accuracy"] = float(top_k_hits(labels, probabilities, k=5).mean())
    intervals = metric_intervals(
        labels,
        probabilities,
        values=values,
        samples=config.bootstrap_samples,
        confidence=config.confidence,
        calibration_bins=config.calibration_bins,
        seed=seed,
    )
    return {
        name: MetricValue(value=value, interval=intervals[name]) for name, value in values.items()
    }


def _per_class(
    confusion: NDArray[np.int64], *, classes: Sequence[str], confidence: float
) -> tuple[ClassScore, ...]:
    scores = class_scores(confusion)
    intervals = class_intervals(confusion, confidence=confidence)
    return tuple(
        ClassScore(
            name=name,
            precision=scores["precision"][index],
            recall=scores["recall"][index],
            f1=scores["f1"][index],
            support=confusion[index].sum(),
            predicted=confusion[:, index].sum(),
            precision_interval=intervals[index].precision,
            recall_interval=intervals[index].recall,
            f1_interval=intervals[index].f1,
        )
        for index, name in enumerate(classes)
    )


def _confused_pairs(
    confusion: NDArray[np.int64], *, classes: Sequence[str]
) -> tuple[ConfusedPair, ...]:
    errors = confusion - np.diag(np.diag(confusion))
    pairs = [
        ConfusedPair(
            actual=classes[actual],
            predicted=classes[predicted],
            count=errors[actual, predicted],
            share=errors[actual, predicted] / confusion[actual].sum(),
        )
        for actual, predicted in np.argwhere(errors)
    ]
    pairs.sort(key=lambda pair: (-pair.count, -pair.share, pair.actual, pair.predicted))
    return tuple(pairs[:_CONFUSED_PAIRS])


def _reliability(
    labels: NDArray[np.int64], probabilities: NDArray[np.floating], *, bins: int
) -> tuple[ReliabilityBin, ...]:
    confidence = probabilities.max(axis=1).astype(np.float64)
    index = confidence_bins(confidence, bins=bins)
    counts = np.bincount(index, minlength=bins)
    correct = np.bincount(index, weights=probabilities.argmax(axis=1) == labels, minlength=bins)
    total = np.bincount(index, weights=confidence, minlength=bins)
    return tuple(
        ReliabilityBin(
            low=position / bins,
            high=(position + 1) / bins,
            count=count,
            confidence=total[position] / count if count else (position + 0.5) / bins,
            accuracy=correct[position] / count if count else 0.0,
        )
        for position, count in enumerate(counts.tolist())
    )


def _predictions(
    probabilities: NDArray[np.floating],
    *,
    records: Sequence[ImageRecord],
    classes: Sequence[str],
) -> tuple[Prediction, ...]:
    answers = zip(
        records, probabilities.argmax(axis=1), probabilities.max(axis=1).tolist(), strict=True
    )
    return tuple(
        Prediction(
            path=record.path,
            actual=record.label,
            predicted=classes[index],
            probability=probability,
            correct=record.label == classes[index],
        )
        for record, index, probability in answers
    )


# --- gate ---
# The gate before deployment.


def refusal(metrics: Mapping[str, float], *, deployment: DeploymentConfig) -> str | None:
    """Why the model is not deployed, or None where it may be.

    Args:
        metrics: headline metrics of the test split.
        deployment: the metric and its threshold.
    """
    if not deployment.enabled:
        return "deployment.enabled is false"
    name, threshold = deployment.gate_metric, deployment.gate_threshold
    value = metrics[name]
    if natural_direction(name) == "minimize":
        return f"{name} {value:.4f} is above {threshold:g}" if value > threshold else None
    return f"{name} {value:.4f} is below {threshold:g}" if value < threshold else None
