"""The figures: drawn without a warning, whatever the classes are called and how many there are."""

import io
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from darkroom.config import EvaluationConfig
from darkroom.data.dataset import ImageRecord
from darkroom.evaluation.evaluate import Evaluation, evaluate
from darkroom.reports.evaluation_page import (
    class_f1_figure,
    confusion_figure,
    predictions_figure,
    reliability_figure,
)
from darkroom.reports.figures import GREEN, RED, drawable, png, training_figure, tuning_figure


@dataclass
class Epoch:
    epoch: int
    train_loss: float
    validation: dict[str, float]


@dataclass
class Trial:
    number: int
    values: dict[str, float | int | str]
    objective: float | None
    state: str = "complete"


@dataclass
class Trials:
    trials: list[Trial]
    best: dict[str, float | int | str] = field(default_factory=dict)
    objective: str = "f1_macro"
    best_value: float = 0.9


def evaluation_of(classes: list[str], *, images: int = 60, strength: float = 1.5) -> Evaluation:
    generator = np.random.default_rng(0)
    labels = np.arange(images) % len(classes)
    logits = generator.normal(size=(images, len(classes)))
    logits[np.arange(images), labels] += strength
    weights = np.exp(logits)
    records = [
        ImageRecord(path=f"{number}.png", label=classes[label], split="test", size=1, sha256="")
        for number, label in enumerate(labels)
    ]
    return evaluate(
        weights / weights.sum(axis=1, keepdims=True),
        records=records,
        classes=classes,
        config=EvaluationConfig(bootstrap_samples=100),
        seed=1,
    )


def drawn(figure: Figure) -> np.ndarray:
    """The pixels, after the header of the PNG was checked."""
    content = png(figure)
    assert content.startswith(b"\x89PNG")
    return np.asarray(Image.open(io.BytesIO(content)).convert("L"))


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


@pytest.mark.parametrize("classes", [2, 10, 133])
def test_the_confusion_matrix_names_every_class_on_both_sides(classes: int) -> None:
    names = [f"class number {number}" for number in range(classes)]
    figure = confusion_figure(evaluation_of(names, images=3 * classes))
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == names
    assert [label.get_text() for label in axes.get_yticklabels()] == names
    assert drawn(figure).std() > 1


@pytest.mark.slow
def test_names_in_the_confusion_matrix_do_not_overlap() -> None:
    names = [f"a rather long class name {number}" for number in range(133)]
    figure = confusion_figure(evaluation_of(names, images=266))
    figure.canvas.draw()
    for labels, side in (("get_yticklabels", "y"), ("get_xticklabels", "x")):
        boxes = [label.get_window_extent() for label in getattr(figure.axes[0], labels)()]
        edges = sorted((getattr(box, f"{side}0"), getattr(box, f"{side}1")) for box in boxes)
        overlap = [low < high for (_, high), (low, _) in pairwise(edges)]
        assert not any(overlap), side


def test_counts_are_written_into_the_cells_of_few_classes_only() -> None:
    few, many = (evaluation_of([f"c{n}" for n in range(count)]) for count in (4, 21))
    assert len(confusion_figure(few).axes[0].texts) == np.count_nonzero(few.confusion)
    assert not confusion_figure(many).axes[0].texts


def test_hard_names_are_drawn_as_they_are_or_as_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["$x_1$", "a" * 90, "连衣裙", "tab\there", "back\\slash $", "{}%s"]
    evaluation = evaluation_of(names)
    for draw in (confusion_figure, class_f1_figure, reliability_figure):
        drawn(draw(evaluation))
    assert "$x_1$" in texts(confusion_figure(evaluation))
    assert drawable("a" * 90, length=5) == "aa…aa"
    monkeypatch.setattr("darkroom.reports.figures._other_fonts", dict)  # none but matplotlib's own
    assert drawable("连衣裙") == "\\u8fde\\u8863\\u88d9"
    assert drawable("🐶") != drawable("🐱")
    assert drawable("a" * 60 + "x") != drawable("a" * 60 + "y")


def test_f1_bars_stop_at_forty_and_show_the_lowest() -> None:
    names = [f"c{number}" for number in range(50)]
    evaluation = evaluation_of(names, images=200)
    figure = class_f1_figure(evaluation)
    shown = [bar.get_width() for bar in figure.axes[0].patches]
    assert shown == sorted(score.f1 for score in evaluation.per_class)[:40]
    assert "the 40 lowest of 50" in figure.axes[0].get_title()


def test_the_reliability_plot_leaves_out_empty_bins() -> None:
    evaluation = evaluation_of(["a", "b", "c"])
    filled = [one.accuracy for one in evaluation.reliability if one.count]
    bars = [bar.get_height() for bar in reliability_figure(evaluation).axes[0].patches]
    assert bars == filled
    assert len(filled) < len(evaluation.reliability)


def test_the_grid_shows_wrong_predictions_in_red_and_right_ones_in_green(tmp_path: Path) -> None:
    evaluation = evaluation_of(["cat", "dog"])
    for number in range(len(evaluation.predictions)):
        Image.new("RGB", (8, 8), "blue").save(tmp_path / f"{number}.png")
    figure = predictions_figure(evaluation, root=tmp_path, images=9, seed=1)
    titles = [axes.title for axes in figure.axes if axes.get_title()]
    assert len(titles) == 9
    for title in titles:
        actual, predicted = title.get_text().split(" →\n")
        right = predicted.startswith(actual)
        assert title.get_color() == (GREEN if right else RED)
    assert [title.get_color() for title in titles] == [RED] * 5 + [GREEN] * 4
    drawn(figure)


def test_a_picture_that_cannot_be_read_leaves_a_gap(tmp_path: Path) -> None:
    figure = predictions_figure(evaluation_of(["cat", "dog"]), root=tmp_path, images=3, seed=1)
    assert texts(figure).count("unreadable") == 3
    drawn(figure)


@pytest.mark.parametrize("epochs", [1, 12])
def test_training_curves_mark_the_best_epoch(epochs: int) -> None:
    history = [
        Epoch(number, 1 / number, {"log_loss": 1.2 / number, "f1_macro": 1 - 0.5 / number})
        for number in range(1, epochs + 1)
    ]
    figure = training_figure(history, best_epoch=epochs)
    assert f"best: epoch {epochs}" in texts(figure)
    left, right = figure.axes
    assert [len(line.get_xdata()) for line in left.lines] == [epochs, epochs, 2]
    assert list(right.lines[0].get_ydata()) == [epoch.validation["f1_macro"] for epoch in history]
    drawn(figure)


def test_the_tuning_figure_shows_every_trial_against_every_hyperparameter() -> None:
    values = {"learning_rate": 1e-3, "batch_size": 16}
    trials = [
        Trial(0, values, 0.7),
        Trial(1, values | {"learning_rate": 1e-2}, 0.9),
        Trial(2, values | {"batch_size": 64, "learning_rate": 1e-4}, 0.4, "pruned"),
        Trial(3, values, None, "failed"),
    ]
    figure = tuning_figure(Trials(trials))
    assert [axes.get_xlabel() for axes in figure.axes] == ["Trial", "batch size", "learning rate"]
    assert [axes.get_xscale() for axes in figure.axes] == ["linear", "linear", "log"]
    for axes in figure.axes:
        points = {group.get_label(): group.get_offsets().tolist() for group in axes.collections}
        assert set(points) == {"complete", "pruned", "failed", "best"}
        assert [y for _, y in points["best"]] == [0.9]
        assert [y for _, y in points["failed"]] == [0.4]
    drawn(figure)


def test_a_search_of_one_trial_can_be_drawn() -> None:
    drawn(tuning_figure(Trials([Trial(0, {"epochs": 3}, 0.9)])))


def test_drawing_leaves_the_global_state_of_matplotlib_alone() -> None:
    before = dict(matplotlib.rcParams)
    drawn(confusion_figure(evaluation_of(["a", "b"])))
    assert dict(matplotlib.rcParams) == before
