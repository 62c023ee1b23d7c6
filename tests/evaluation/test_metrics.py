"""The metrics against scikit-learn, a hand-worked example, and what must not matter."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from darkroom.evaluation.metrics import (
    calibration_error,
    class_scores,
    confidence_bins,
    confusion_counts,
    headline_metrics,
    top_k_hits,
    weighted_metrics,
)


def experiment(seed: int, *, images: int = 200, classes: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities of a model that is right more often than not."""
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.full(classes, 0.4), size=images)
    guesses = generator.integers(classes, size=images)
    right = generator.random(images) < 0.6
    return np.where(right, probabilities.argmax(axis=1), guesses), probabilities


def scikit_learn(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    classes = list(range(probabilities.shape[1]))
    predicted = probabilities.argmax(axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that were predicted and do not occur
        scores = {
            "accuracy": oracle.accuracy_score(labels, predicted),
            "balanced_accuracy": oracle.balanced_accuracy_score(labels, predicted),
            "log_loss": oracle.log_loss(labels, probabilities, labels=classes),
        }
    for average in ("macro", "weighted"):
        for name in ("precision", "recall", "f1"):
            score = getattr(oracle, f"{name}_score")
            scores[f"{name}_{average}"] = score(labels, predicted, average=average, zero_division=0)
    return scores


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("images", "classes"), [(200, 7), (30, 2), (40, 20)])
def test_metrics_are_those_of_scikit_learn(seed: int, images: int, classes: int) -> None:
    labels, probabilities = experiment(seed, images=images, classes=classes)
    ours = headline_metrics(labels, probabilities)
    confusion = confusion_counts(labels, probabilities.argmax(axis=1), classes=classes)
    ours |= {name: float(value) for name, value in weighted_metrics(confusion).items()}
    for name, expected in scikit_learn(labels, probabilities).items():
        assert ours[name] == pytest.approx(expected, abs=1e-12), name


@pytest.mark.parametrize("seed", range(5))
def test_scores_by_class_are_those_of_scikit_learn(seed: int) -> None:
    labels, probabilities = experiment(seed, images=40, classes=9)
    predicted = probabilities.argmax(axis=1)
    confusion = confusion_counts(labels, predicted, classes=9)
    expected = oracle.precision_recall_fscore_support(
        labels, predicted, labels=range(9), zero_division=0
    )
    np.testing.assert_array_equal(confusion, oracle.confusion_matrix(labels, predicted))
    for name, values in zip(("precision", "recall", "f1"), expected, strict=False):
        np.testing.assert_allclose(class_scores(confusion)[name], values, atol=1e-12)


def test_top_5_is_that_of_scikit_learn() -> None:
    labels, probabilities = experiment(3, images=500, classes=12)
    expected = oracle.top_k_accuracy_score(labels, probabilities, k=5, labels=range(12))
    assert top_k_hits(labels, probabilities, k=5).mean() == pytest.approx(expected)


def test_the_first_of_equals_counts_as_predicted_in_top_1_as_in_argmax() -> None:
    probabilities = np.full((3, 3), 1 / 3)
    assert top_k_hits(np.arange(3), probabilities, k=1).tolist() == [True, False, False]


def test_calibration_error_of_an_example_worked_by_hand() -> None:
    # Two bins. [0, .5): confidences .40, .45, one right. [.5, 1]: .6, .7, .9, two right.
    # ECE = 2/5 · |1/2 − .425| + 3/5 · |2/3 − 2.2/3| = .03 + .04
    top = np.array([0.40, 0.45, 0.6, 0.7, 0.9])
    rest = (1 - top) / 2
    probabilities = np.stack([top, rest, rest], axis=1)
    labels = np.array([0, 1, 0, 0, 2])
    assert calibration_error(labels, probabilities, bins=2) == pytest.approx(0.07)


def naive_calibration_error(labels: np.ndarray, probabilities: np.ndarray, *, bins: int) -> float:
    total = 0.0
    for number in range(bins):
        low, high = number / bins, (number + 1) / bins
        inside = [
            (row.max(), row.argmax() == label)
            for label, row in zip(labels, probabilities, strict=True)
            if low <= row.max() < high or (number == bins - 1 and row.max() == 1)
        ]
        if inside:
            confidence, accuracy = np.mean(inside, axis=0)
            total += len(inside) / len(labels) * abs(accuracy - confidence)
    return total


@pytest.mark.parametrize("bins", [2, 10, 15])
def test_calibration_error_is_that_of_a_plain_loop(bins: int) -> None:
    labels, probabilities = experiment(1)
    expected = naive_calibration_error(labels, probabilities, bins=bins)
    assert calibration_error(labels, probabilities, bins=bins) == pytest.approx(expected)


def test_certainty_falls_into_the_last_bin() -> None:
    assert confidence_bins(np.array([0.0, 0.49, 0.5, 1.0]), bins=2).tolist() == [0, 0, 1, 1]


@given(seed=st.integers(0, 10_000), classes=st.integers(2, 9), images=st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_neither_the_order_of_images_nor_that_of_classes_matters(
    seed: int, classes: int, images: int
) -> None:
    labels, probabilities = experiment(seed, images=images, classes=classes)
    generator = np.random.default_rng(seed)
    order, renaming = generator.permutation(images), generator.permutation(classes)
    shuffled = headline_metrics(labels[order], probabilities[order])
    renamed = headline_metrics(np.argsort(renaming)[labels], probabilities[:, renaming])
    expected = headline_metrics(labels, probabilities)
    assert shuffled == pytest.approx(expected)
    assert renamed == pytest.approx(expected)


@given(seed=st.integers(0, 10_000), classes=st.integers(2, 9), images=st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_metrics_lie_in_their_range(seed: int, classes: int, images: int) -> None:
    values = headline_metrics(*experiment(seed, images=images, classes=classes))
    assert values.pop("log_loss") >= 0
    assert all(0 <= value <= 1 + 1e-12 for value in values.values())


def test_a_certain_mistake_costs_much_but_not_infinitely() -> None:
    probabilities = np.array([[1.0, 0.0], [1.0, 0.0]])
    assert headline_metrics(np.array([0, 1]), probabilities)["log_loss"] == pytest.approx(
        -np.log(1e-15) / 2
    )
