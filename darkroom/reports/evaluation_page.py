"""The evaluation as a page: self-contained HTML, light and dark, printable."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from darkroom.config import EvaluationConfig
from darkroom.config.sections import Metric
from darkroom.data.dataset import Dataset
from darkroom.evaluation.evaluate import ConfusedPair, Evaluation, MetricValue, Prediction
from darkroom.evaluation.findings import findings, sample_predictions
from darkroom.evaluation.intervals import NO_INTERVAL
from darkroom.reports.figures import BLUE, GREY, ORANGE, clean, drawable, new_figure, png
from darkroom.reports.pages import data_uri, render_page, thumbnail
from darkroom.reports.pictures import Tile, picture_grid
from darkroom.reports.pictures import thumbnail as tile_picture
from darkroom.runs.summary import metric_label

# --- evaluation figures ---
# The figures of an evaluation: confusions, calibration, scores by class, predictions.

_MAX_ANNOTATED_CLASSES = 20
_MAX_NAMED_CLASSES = 150
_MAX_BARS = 40


def confusion_figure(evaluation: Evaluation) -> Figure:
    """The confusion matrix, coloured by the share of the actual class's images.

    Counts are written into the cells up to 20 classes; with more, the colours spread the
    small shares apart instead. Beyond 150 classes only some of the names are shown.
    """
    counts = np.array(evaluation.confusion)
    shares = counts / counts.sum(axis=1, keepdims=True).clip(1)
    few = len(counts) <= _MAX_ANNOTATED_CLASSES
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
    lowest = sorted(tested, key=lambda score: (score.f1, score.name))[:_MAX_BARS]
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
    every = -(-len(classes) // _MAX_NAMED_CLASSES)
    positions = range(0, len(classes), every)
    labels = [drawable(classes[position]) for position in positions]
    size = 9 if len(classes) <= _MAX_ANNOTATED_CLASSES else 6
    axes.set_xticks(positions, labels=labels, rotation=90, fontsize=size, parse_math=False)
    axes.set_yticks(positions, labels=labels, fontsize=size, parse_math=False)


def _write_counts(axes: Axes, *, counts: NDArray[np.generic], shares: NDArray[np.generic]) -> None:
    for row, column in np.argwhere(counts):
        colour = "white" if shares[row, column] > 0.5 else "black"
        text = f"{counts[row, column]}"
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)


def _tile(prediction: Prediction, *, root: Path) -> Tile:
    return Tile.of(
        tile_picture(root / prediction.path),
        actual=prediction.actual,
        predicted=prediction.predicted,
        probability=prediction.probability,
    )


# --- documents ---

_EXAMPLES_PER_PAIR = 3
_EXAMPLE_SIDE = 96  # pixels

_PIXELS_PER_INCH = 96  # of CSS
_WIDEST_CHART = 1100  # CSS pixels

_PICTURES = "predictions"
"""The figure that the page shows as pictures with captions instead."""


_Pictured = list[tuple[Prediction, str | None]]
_Gallery = tuple[str, str, _Pictured]


@dataclass(frozen=True)
class _Chart:
    title: str
    address: str
    width: int
    """CSS pixels."""
    large: bool
    """Wider than the page."""


def evaluation_figures(
    evaluation: Evaluation, *, dataset: Dataset, config: EvaluationConfig, seed: int
) -> dict[str, Figure]:
    """The figures of an evaluation by name: a file each in the tracker.

    Args:
        dataset: has the pictures that were evaluated, at its root.
        config: how many pictures the grid of predictions has.
        seed: of the choice of these pictures.
    """
    return {
        "confusion_matrix": confusion_figure(evaluation),
        "reliability": reliability_figure(evaluation),
        "class_f1": class_f1_figure(evaluation),
        _PICTURES: predictions_figure(
            evaluation, root=dataset.root, images=config.grid_images, seed=seed
        ),
    }


def evaluation_report(
    evaluation: Evaluation,
    *,
    dataset: Dataset,
    figures: Mapping[str, Figure],
    images: int = 24,
    seed: int = 0,
) -> str:
    """The evaluation as one HTML page.

    Args:
        dataset: where the pictures lie.
        figures: of `evaluation_figures`.
        images: number of predictions that are shown as pictures.
        seed: of their choice.
    """
    scores = sorted(evaluation.per_class, key=lambda score: (score.f1, score.name))
    further = [name for name in evaluation.metrics if name not in get_args(Metric)]
    return render_page(
        "evaluation.html.j2",
        evaluation=evaluation,
        source=dataset.source,
        fingerprint=dataset.fingerprint,
        headline=_headline(evaluation.metrics),
        findings=findings(evaluation),
        without=_without_interval(evaluation.metrics),
        pairs=[
            (pair, _examples(pair, evaluation.predictions, root=dataset.root))
            for pair in evaluation.confused_pairs
        ],
        galleries=_galleries(evaluation, root=dataset.root, images=images, seed=seed),
        charts=_charts(figures),
        scores=[score for score in scores if score.support],
        absent=[score.name for score in scores if not score.support],
        further=[(metric_label(name), evaluation.metrics[name]) for name in further],
    )


def _headline(metrics: Mapping[str, MetricValue]) -> list[tuple[str, MetricValue]]:
    return [(metric_label(name), metrics[name]) for name in get_args(Metric) if name in metrics]


def _without_interval(metrics: Mapping[str, MetricValue]) -> list[tuple[str, list[str]]]:
    """Metrics that have none, by the reason why."""
    missing = [name for name, metric in metrics.items() if metric.interval is None]
    reasons = dict.fromkeys(NO_INTERVAL[name] for name in missing)
    return [
        (reason, [metric_label(name) for name in missing if NO_INTERVAL[name] == reason])
        for reason in reasons
    ]


def _charts(figures: Mapping[str, Figure]) -> list[_Chart]:
    return [_chart(name, figure) for name, figure in figures.items() if name != _PICTURES]


def _chart(name: str, figure: Figure) -> _Chart:
    width = round(figure.get_figwidth() * _PIXELS_PER_INCH)
    return _Chart(
        title=name.replace("_", " ").capitalize(),
        address=data_uri(png(figure)),
        width=width,
        large=width > _WIDEST_CHART,
    )


def _examples(
    pair: ConfusedPair, predictions: Iterable[Prediction], *, root: Path
) -> list[tuple[str, str]]:
    """Path and picture of a pair's most confident mistakes, as far as they can be decoded."""
    mistakes = [
        prediction
        for prediction in predictions
        if (prediction.actual, prediction.predicted) == (pair.actual, pair.predicted)
    ]
    mistakes.sort(key=lambda prediction: (-prediction.probability, prediction.path))
    shown = mistakes[:_EXAMPLES_PER_PAIR]
    pictures = [(one.path, thumbnail(root / one.path, side=_EXAMPLE_SIDE)) for one in shown]
    return [(path, picture) for path, picture in pictures if picture]


def _galleries(evaluation: Evaluation, *, root: Path, images: int, seed: int) -> list[_Gallery]:
    wrong, right = sample_predictions(evaluation, count=images, seed=seed)
    return [
        ("Wrong, the most confident first: actual → predicted", "bad", _pictured(wrong, root=root)),
        ("Right, drawn at random", "good", _pictured(right, root=root)),
    ]


def _pictured(predictions: Iterable[Prediction], *, root: Path) -> _Pictured:
    return [(prediction, thumbnail(root / prediction.path)) for prediction in predictions]
