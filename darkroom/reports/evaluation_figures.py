"""The figures of an evaluation: confusions, calibration, scores by class, predictions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from darkroom.evaluation.evaluate import Evaluation, Prediction
from darkroom.evaluation.findings import sample_predictions
from darkroom.reports.figures import BLUE, GREY, ORANGE, clean, drawable, new_figure
from darkroom.reports.picture_grid import Tile, picture_grid, thumbnail

_MOST_ANNOTATED_CLASSES = 20
_MOST_NAMED_CLASSES = 150
_MOST_BARS = 40


def confusion_figure(evaluation: Evaluation) -> Figure:
    """The confusion matrix, coloured by the share of the actual class's images.

    Counts are written into the cells up to 20 classes; with more, the colours spread the
    small shares apart instead. Beyond 150 classes only some of the names are shown.
    """
    counts = np.array(evaluation.confusion)
    shares = counts / counts.sum(axis=1, keepdims=True).clip(1)
    few = len(counts) <= _MOST_ANNOTATED_CLASSES
    side = min(22.0, 2.6 + len(counts) * (0.42 if few else 0.13))
    figure = new_figure(width=max(6.0, side + 0.6), height=max(5.2, side), layout="compressed")
    axes = figure.add_subplot()
    norm = PowerNorm(1 if few else 0.5, vmin=0, vmax=1)
    image = axes.imshow(shares, cmap="Blues", norm=norm, interpolation="nearest")
    bar = figure.colorbar(image, ax=axes, fraction=0.04, format=PercentFormatter(1, decimals=0))
    bar.set_label("Share of the actual class")
    _name_cells(axes, evaluation.classes)
    if few:
        _write_counts(axes, counts=counts, shares=shares)
    axes.set_xlabel("Predicted")
    axes.set_ylabel("Actual")
    axes.set_title(f"Confusion matrix, {evaluation.split} split")
    return figure


def reliability_figure(evaluation: Evaluation) -> Figure:
    """Accuracy against confidence by bin, over the number of images in each bin."""
    figure = new_figure(width=5.6, height=5.6)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    bins = [bin_ for bin_ in evaluation.reliability if bin_.count]
    middles = [(bin_.low + bin_.high) / 2 for bin_ in bins]
    width = 0.92 / len(evaluation.reliability)
    upper.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="perfectly calibrated")
    upper.bar(
        middles, [bin_.accuracy for bin_ in bins], width, color=BLUE, label="accuracy of the bin"
    )
    upper.plot(
        [bin_.confidence for bin_ in bins],
        [bin_.accuracy for bin_ in bins],
        "o",
        color=ORANGE,
        markersize=4,
        label="accuracy at the bin's mean confidence",
    )
    upper.set_ylim(0, 1.02)
    upper.set_ylabel("Accuracy")
    figure.legend(
        *upper.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=2,
        frameon=False,
        fontsize=8,
    )
    error = evaluation.metrics["calibration_error"].value
    upper.set_title(f"Reliability, calibration error {error:.3f}")
    lower.bar(middles, [bin_.count for bin_ in bins], width, color=GREY)
    lower.set_ylabel("Images")
    lower.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    lower.set_xlim(0, 1)
    lower.set_xlabel("Confidence: probability of the predicted class")
    clean(upper, lower)
    return figure


def class_f1_figure(evaluation: Evaluation) -> Figure:
    """F1 by class, the lowest on top; with more than 40 classes the 40 lowest."""
    tested = [score for score in evaluation.per_class if score.support]
    lowest = sorted(tested, key=lambda score: (score.f1, score.name))[:_MOST_BARS]
    figure = new_figure(width=6.4, height=1.2 + 0.24 * len(lowest))
    axes = figure.add_subplot()
    positions = np.arange(len(lowest))
    axes.barh(positions, [score.f1 for score in lowest], color=BLUE, height=0.7)
    for position, score in zip(positions, lowest, strict=True):
        axes.text(score.f1 + 0.01, float(position), f"{score.f1:.2f}", va="center", fontsize=8)
    labels = [f"{drawable(score.name)} ({score.support})" for score in lowest]
    axes.set_yticks(positions, labels=labels, fontsize=8, parse_math=False)
    axes.set_ylim(len(lowest) - 0.5, -0.5)
    axes.set_xlim(0, 1.08)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.set_xlabel("F1 (number of images in brackets)")
    shown = f", the {len(lowest)} lowest of {len(tested)}" if len(lowest) < len(tested) else ""
    axes.set_title(f"F1 by class{shown}")
    clean(axes)
    return figure


def predictions_figure(evaluation: Evaluation, *, root: Path, images: int, seed: int) -> Figure:
    """Pictures with actual and predicted class, wrong ones (red) before right ones (green).

    Args:
        root: folder that the predictions' paths are relative to.
        images: number of pictures.
        seed: of the choice among the predictions.
    """
    wrong, right = sample_predictions(evaluation, count=images, seed=seed)
    chosen = [*wrong, *right]
    title = f"{len(wrong)} wrong and {len(right)} right predictions: actual → predicted"
    return picture_grid([_tile(prediction, root=root) for prediction in chosen], title=title)


def _name_cells(axes: Axes, classes: Sequence[str]) -> None:
    every = -(-len(classes) // _MOST_NAMED_CLASSES)
    positions = range(0, len(classes), every)
    labels = [drawable(classes[position]) for position in positions]
    size = 9 if len(classes) <= _MOST_ANNOTATED_CLASSES else 6
    axes.set_xticks(positions, labels=labels, rotation=90, fontsize=size, parse_math=False)
    axes.set_yticks(positions, labels=labels, fontsize=size, parse_math=False)


def _write_counts(axes: Axes, *, counts: NDArray[np.generic], shares: NDArray[np.generic]) -> None:
    for row, column in np.argwhere(counts):
        colour = "white" if shares[row, column] > 0.5 else "black"
        text = f"{counts[row, column]}"
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)


def _tile(prediction: Prediction, *, root: Path) -> Tile:
    return Tile.of(
        thumbnail(root / prediction.path),
        actual=prediction.actual,
        predicted=prediction.predicted,
        probability=prediction.probability,
    )
