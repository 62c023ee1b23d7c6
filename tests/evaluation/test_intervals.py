"""The intervals: right where the truth is known, repeatable, quick, and absent where unknown."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from benchmarks.interval_coverage import covered, model_of, values_of
from darkroom.evaluation.intervals import (
    NO_INTERVAL,
    Interval,
    class_intervals,
    metric_intervals,
    proportion_interval,
)


def experiment(seed: int, *, images: int, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return model_of(0.8, classes=classes).answers(images, generator=generator)


def intervals(
    labels: np.ndarray, probabilities: np.ndarray, *, seed: int = 0, confidence: float = 0.95
) -> dict[str, Interval | None]:
    return metric_intervals(
        labels,
        probabilities,
        values=values_of(labels, probabilities),
        samples=40,
        confidence=confidence,
        calibration_bins=15,
        seed=seed,
    )


def exact_coverage(share: float, *, trials: int) -> float:
    """Summed over all numbers of successes: no simulation."""
    successes = np.arange(trials + 1)
    found = [proportion_interval(k, trials, confidence=0.95) for k in successes.tolist()]
    holds = [low <= share <= high for low, high in found]
    return float(stats.binom.pmf(successes, trials, share)[holds].sum())


@pytest.mark.parametrize("trials", [20, 60, 270, 1000])
@pytest.mark.parametrize("share", [0.6, 0.9, 0.97, 0.995])
def test_a_proportions_interval_covers_it(share: float, trials: int) -> None:
    found = exact_coverage(share, trials=trials)
    assert found >= 0.93
    # Where a mistake is expected in fewer than two test sets of three, chance is all or nothing.
    assert found <= 0.98 or trials * (1 - share) < 2


@pytest.mark.parametrize("trials", [1, 2, 5, 10, 19, 20, 40, 100])
def test_a_proportions_interval_never_covers_far_less(trials: int) -> None:
    shares = np.concatenate([np.linspace(0.5, 0.99, 60), 1 - np.geomspace(1e-2, 1e-4, 40)])
    assert min(exact_coverage(float(share), trials=trials) for share in shares) >= 0.915


def test_a_proportions_interval_is_scipys_of_either_kind() -> None:
    def oracle(successes: int, trials: int, method: str) -> tuple[float, float]:
        result = stats.binomtest(successes, trials)
        return tuple(result.proportion_ci(confidence_level=0.95, method=method))

    assert proportion_interval(70, 100, confidence=0.95) == pytest.approx(oracle(70, 100, "wilson"))
    assert proportion_interval(7, 10, confidence=0.95) == pytest.approx(oracle(7, 10, "exact"))
    low, high = proportion_interval(99, 100, confidence=0.95)
    assert low == pytest.approx(oracle(99, 100, "wilson")[0])
    assert high == pytest.approx(oracle(99, 100, "exact")[1])


def test_without_a_single_mistake_an_interval_still_has_a_width() -> None:
    labels = np.arange(60) % 3
    found = intervals(labels, np.eye(3)[labels] * 0.97 + 0.01)
    for name in ("accuracy", "f1_macro", "precision_macro", "f1_weighted", "calibration_error"):
        low, high = found[name]
        assert high - low > 0.02, name
    assert found["accuracy"] == pytest.approx((0.940, 1), abs=1e-3)
    assert found["log_loss"] is None


@pytest.mark.parametrize(("classes", "accuracy", "images"), [(2, 0.97, 60), (10, 0.9, 270)])
def test_intervals_cover_the_truth_of_simulated_models(
    classes: int, accuracy: float, images: int
) -> None:
    found = covered(model_of(accuracy, classes=classes), images=images, experiments=60, samples=30)
    for name, (share, published) in found.items():
        # 0.95 less three standard deviations of a share of 60.
        assert share >= 0.86 or published < 0.5, (name, share)
    assert found["f1_macro"][1] == found["calibration_error"][1] == 1


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.75, 0.15, 0.1)], ids=["even", "uneven"])
def test_an_averages_interval_is_as_wide_as_the_average_varies(shares: tuple[float, ...]) -> None:
    """Classes of unequal scores: that their numbers vary has its part in the variance."""
    classes, images, generator = len(shares), 600, np.random.default_rng(0)
    right = np.linspace(0.95, 0.5, classes)
    widths, values = [], []
    for _ in range(150):
        labels = generator.choice(classes, size=images, p=shares)
        missed = generator.random(images) > right[labels]
        answers = np.where(missed, (labels + 1) % classes, labels)
        probabilities = np.eye(classes)[answers] * 0.9 + 0.1 / classes
        values.append(values_of(labels, probabilities))
        if len(widths) < 10:
            widths.append(intervals(labels, probabilities))
    for name in ("f1_macro", "f1_weighted", "precision_macro", "precision_weighted"):
        deviation = np.std([each[name] for each in values])
        width = np.mean([each[name][1] - each[name][0] for each in widths])
        assert width / (2 * 1.96) == pytest.approx(deviation, rel=0.15), name


def test_the_calibration_errors_interval_reaches_down_to_a_calibrated_models() -> None:
    """Its value does not: absolute values of chance add up."""
    model = model_of(0.9, classes=10)
    lows = []
    for seed in range(12):
        data = model.answers(200, generator=np.random.default_rng(seed))
        value, (low, high) = (values_of(*data), intervals(*data))[0], (0.0, 0.0)
        low, high = intervals(*data)["calibration_error"]
        assert low <= value["calibration_error"] <= high
        lows.append(low)
    assert sum(low == 0 for low in lows) >= 10


def test_what_cannot_be_told_has_no_interval_and_a_reason() -> None:
    data = experiment(1, images=20, classes=10)
    found = intervals(*data)
    missing = {name for name, interval in found.items() if interval is None}
    assert missing == set(NO_INTERVAL)
    assert found["accuracy"]
    assert found["balanced_accuracy"]


def test_class_scores_have_intervals_of_their_own_denominators() -> None:
    confusion = np.array([[9, 1, 0], [0, 30, 0], [0, 0, 0]])
    first, second, third = class_intervals(confusion, confidence=0.95)
    assert first.recall == proportion_interval(9, 10, confidence=0.95)
    assert first.precision == proportion_interval(9, 9, confidence=0.95)
    assert second.precision == proportion_interval(30, 31, confidence=0.95)
    low, high = proportion_interval(9, 10, confidence=0.95)
    assert first.f1 == pytest.approx((2 * low / (1 + low), 2 * high / (1 + high)))
    assert (third.precision, third.recall, third.f1) == (None, None, None)


@settings(max_examples=30, deadline=None)
@given(
    images=st.integers(1, 40),
    classes=st.integers(2, 7),
    seed=st.integers(0, 10_000),
    sharpness=st.floats(0.02, 5),
)
def test_every_interval_holds_its_value_whatever_the_test_set(
    images: int, classes: int, seed: int, sharpness: float
) -> None:
    generator = np.random.default_rng(seed)
    labels = generator.integers(generator.integers(1, classes + 1), size=images)
    probabilities = generator.dirichlet(np.full(classes, sharpness), size=images)
    probabilities = np.nan_to_num(probabilities, nan=1 / classes)
    values = values_of(labels, probabilities)
    for name, interval in intervals(labels, probabilities).items():
        if interval is not None:
            assert interval[0] <= values[name] <= interval[1], name
            assert 0 <= interval[0] <= interval[1], name
            assert interval[1] <= 1 or name == "log_loss", name


def test_the_same_seed_gives_the_same_intervals() -> None:
    data = experiment(2, images=80)
    assert intervals(*data, seed=5) == intervals(*data, seed=5)


def test_more_confidence_makes_wider_intervals_and_more_images_narrower() -> None:
    few, many = experiment(3, images=100), experiment(3, images=1000)

    def widths(data: tuple, *, confidence: float = 0.95) -> dict[str, float]:
        found = intervals(*data, confidence=confidence)
        return {name: pair[1] - pair[0] for name, pair in found.items() if pair}

    usual = widths(few)
    for name, width in usual.items():
        assert widths(few, confidence=0.8)[name] <= width <= widths(few, confidence=0.99)[name]
        assert widths(many)[name] < 0.6 * width


def test_ten_thousand_images_of_a_thousand_classes_take_seconds() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(1000, size=10_000)
    probabilities = generator.dirichlet(np.full(1000, 0.05), size=10_000)
    start = time.process_time()
    intervals(labels, probabilities)
    assert time.process_time() - start < 5
