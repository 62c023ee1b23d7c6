"""The intervals: right where the truth is known, repeatable, quick."""

import time
import tracemalloc

import numpy as np
import pytest

from darkroom.evaluation.bootstrap import bootstrap_intervals
from darkroom.evaluation.metrics import (
    confusion_counts,
    headline_metrics,
    top_k_hits,
    weighted_metrics,
)


def experiment(
    seed: int, *, images: int, classes: int = 5, sharpening: float = 1
) -> tuple[np.ndarray, np.ndarray]:
    """A calibrated model, its labels drawn from its probabilities; or an overconfident one."""
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.full(classes, 0.3), size=images)
    thresholds = probabilities.cumsum(axis=1)
    labels = (generator.random((images, 1)) > thresholds[:, :-1]).sum(axis=1)
    sharpened = probabilities**sharpening
    return labels, sharpened / sharpened.sum(axis=1, keepdims=True)


def values_of(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    confusion = confusion_counts(
        labels, probabilities.argmax(axis=1), classes=probabilities.shape[1]
    )
    values = headline_metrics(labels, probabilities)
    values |= {name: float(value) for name, value in weighted_metrics(confusion).items()}
    values["top5_accuracy"] = float(top_k_hits(labels, probabilities, k=5).mean())
    return values


def intervals(
    labels: np.ndarray,
    probabilities: np.ndarray,
    *,
    seed: int = 0,
    samples: int = 400,
    confidence: float = 0.95,
    only: str = "",
) -> dict[str, tuple[float, float]]:
    values = values_of(labels, probabilities)
    return bootstrap_intervals(
        labels,
        probabilities,
        values={only: values[only]} if only else values,
        samples=samples,
        confidence=confidence,
        calibration_bins=15,
        seed=seed,
    )


def naive_intervals(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, tuple]:
    """Resample the images and compute every metric anew."""
    generator = np.random.default_rng(99)
    drawn = []
    for _ in range(1500):
        index = generator.integers(len(labels), size=len(labels))
        drawn.append(values_of(labels[index], probabilities[index]))
    return {
        name: tuple(np.quantile([values[name] for values in drawn], (0.025, 0.975)))
        for name in drawn[0]
    }


def test_intervals_are_those_of_plain_resampling() -> None:
    labels, probabilities = experiment(1, images=150, classes=7)
    expected = naive_intervals(labels, probabilities)
    found = intervals(labels, probabilities, samples=1500)
    value = values_of(labels, probabilities)["calibration_error"]
    low, high = expected["calibration_error"]
    expected["calibration_error"] = (max(0.0, 2 * value - high), max(value, 2 * value - low))
    assert found.keys() == expected.keys()
    for name, interval in expected.items():
        width = interval[1] - interval[0]
        assert found[name] == pytest.approx(interval, abs=0.12 * width), name


def test_the_same_seed_gives_the_same_intervals_and_another_seed_others() -> None:
    data = experiment(2, images=80)
    assert intervals(*data, seed=5) == intervals(*data, seed=5)
    assert intervals(*data, seed=5) != intervals(*data, seed=6)


def test_chunks_do_not_change_how_many_resamples_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    data = experiment(2, images=80)
    whole = intervals(*data)
    monkeypatch.setattr("darkroom.evaluation.bootstrap._CHUNK_ELEMENTS", 1000)
    for name, interval in intervals(*data).items():
        assert interval == pytest.approx(whole[name]), name


def test_every_interval_holds_its_value() -> None:
    for seed in range(20):
        data = experiment(seed, images=15)
        for name, (low, high) in intervals(*data, samples=100).items():
            assert low <= values_of(*data)[name] <= high, name


def test_more_confidence_makes_wider_intervals_and_more_images_narrower() -> None:
    few, many = experiment(3, images=100), experiment(3, images=1000)

    def width(data: tuple, *, confidence: float = 0.95) -> float:
        low, high = intervals(*data, confidence=confidence)["accuracy"]
        return high - low

    assert width(few, confidence=0.8) < width(few) < width(few, confidence=0.99)
    assert width(many) < 0.5 * width(few)


def test_one_image_has_an_interval_too() -> None:
    found = intervals(np.array([1]), np.array([[0.2, 0.8]]), samples=100)
    assert found["accuracy"] == (1.0, 1.0)


def test_ten_thousand_images_take_seconds_and_little_memory() -> None:
    labels, probabilities = experiment(4, images=10_000, classes=10)
    start = time.process_time()
    intervals(labels, probabilities, samples=1000)
    assert time.process_time() - start < 3
    tracemalloc.start()
    intervals(labels, probabilities, samples=1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300e6


def coverage(
    metric: str, *, truth: float, experiments: int, images: int, sharpening: float = 1
) -> float:
    covered = 0
    for seed in range(experiments):
        data = experiment(seed, images=images, sharpening=sharpening)
        low, high = intervals(*data, only=metric)[metric]
        covered += low <= truth <= high
    return covered / experiments


def test_intervals_cover_the_true_accuracy() -> None:
    # A calibrated model's accuracy is its mean confidence; Dirichlet(0.3 × 5) puts it here.
    truth = experiment(12345, images=400_000)[1].max(axis=1).mean()
    # 95 % ± 3 standard deviations of a share of 300 experiments.
    assert 0.91 <= coverage("accuracy", truth=truth, experiments=300, images=300) <= 0.99


def test_intervals_cover_the_true_calibration_error_of_an_overconfident_model() -> None:
    truth = values_of(*experiment(12345, images=400_000, sharpening=1.3))["calibration_error"]
    found = coverage("calibration_error", truth=truth, experiments=200, images=100, sharpening=1.3)
    assert 0.85 <= found <= 1


def test_intervals_of_a_calibrated_model_often_reach_down_to_no_error_at_all() -> None:
    # Plain percentiles never do: resamples only add to the error.
    assert coverage("calibration_error", truth=0.0, experiments=100, images=300) >= 0.4


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["accuracy", "log_loss", "f1_macro"])
def test_intervals_cover_the_truth_in_about_95_percent_of_many_experiments(metric: str) -> None:
    truth = values_of(*experiment(12345, images=1_000_000))[metric]
    assert 0.925 <= coverage(metric, truth=truth, experiments=1500, images=500) <= 0.97
