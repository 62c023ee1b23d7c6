"""The evaluation as a page: self-contained HTML, light and dark, printable."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from matplotlib.figure import Figure

from darkroom.config import EvaluationConfig
from darkroom.config.metrics import Metric
from darkroom.dataset import Dataset
from darkroom.evaluation.evaluate import ConfusedPair, Evaluation, MetricValue, Prediction
from darkroom.evaluation.findings import findings, sample_predictions
from darkroom.evaluation.intervals import NO_INTERVAL
from darkroom.reports.evaluation_figures import (
    class_f1_figure,
    confusion_figure,
    predictions_figure,
    reliability_figure,
)
from darkroom.reports.figures import png
from darkroom.reports.pages import data_uri, render_page, thumbnail
from darkroom.summary import metric_label

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
    """The figures of an evaluation by name: a file each in the tracker."""
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
