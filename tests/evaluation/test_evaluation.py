"""Evaluation: what it says of a model, in a shape that survives JSON, and what it refuses."""

import base64
import time
from typing import get_args

import numpy as np
import pytest

from darkroom.base.errors import DarkroomError, UserError
from darkroom.config import EvaluationConfig
from darkroom.config.sections import Metric
from darkroom.data.dataset import ImageRecord
from darkroom.evaluation.evaluate import Evaluation, evaluate
from darkroom.evaluation.findings import findings, sample_predictions
from darkroom.evaluation.intervals import NO_INTERVAL
from darkroom.evaluation.metrics import headline_metrics

CONFIG = EvaluationConfig(bootstrap_samples=100)


def records(labels: list[str]) -> list[ImageRecord]:
    return [
        ImageRecord(path=f"{label}/{number:04}.png", label=label, split="test", size=1, sha256="")
        for number, label in enumerate(labels)
    ]


def judged(
    actual: str, predicted: str, *, classes: str = "abc", confidence: float = 0.8
) -> Evaluation:
    """An evaluation of one-letter classes, one letter an image."""
    rest = (1 - confidence) / (len(classes) - 1)
    probabilities = np.full((len(actual), len(classes)), rest, dtype=np.float32)
    for row, letter in enumerate(predicted):
        probabilities[row, classes.index(letter)] = confidence
    return evaluate(
        probabilities, records=records(list(actual)), classes=list(classes), config=CONFIG, seed=1
    )


def test_headline_metrics_have_values_and_intervals_around_them() -> None:
    evaluation = judged("aabbcc", "aabbca")
    expected = headline_metrics(np.array([0, 0, 1, 1, 2, 2]), evaluation.probabilities)
    assert set(get_args(Metric)) <= set(evaluation.metrics)
    assert evaluation.values().items() >= expected.items()
    for name, metric in evaluation.metrics.items():
        if metric.interval is None:
            assert name in NO_INTERVAL
        else:
            assert metric.interval[0] <= metric.value <= metric.interval[1]
    assert evaluation.metrics["accuracy"].interval


def test_an_evaluation_survives_json_bit_by_bit() -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(3), size=20).astype(np.float32)
    evaluation = evaluate(
        probabilities, records=records(["a", "b"] * 10), classes=list("abc"), config=CONFIG, seed=1
    )
    again = Evaluation.model_validate_json(evaluation.model_dump_json())
    assert again == evaluation
    assert again.probabilities.dtype == np.float32
    np.testing.assert_array_equal(again.probabilities, probabilities)
    assert len(base64.b64decode(again.encoded_probabilities)) == 20 * 3 * 4


def test_predictions_are_in_the_order_of_the_records() -> None:
    evaluation = judged("abc", "aac")
    assert [(one.actual, one.predicted, one.correct) for one in evaluation.predictions] == [
        ("a", "a", True),
        ("b", "a", False),
        ("c", "c", True),
    ]
    assert evaluation.predictions[1].path == "b/0001.png"
    assert evaluation.predictions[1].probability == pytest.approx(0.8)


def test_scores_by_class_carry_names_and_numbers_of_images() -> None:
    first, second, third = judged("aaab", "aabb").per_class
    assert (first.name, first.support, first.predicted) == ("a", 3, 2)
    assert (first.precision, first.recall, first.f1) == pytest.approx((1, 2 / 3, 0.8))
    assert (second.precision, second.recall) == (0.5, 1)
    assert (third.name, third.support, third.f1) == ("c", 0, 0)


def test_a_class_that_does_not_occur_lowers_no_average() -> None:
    evaluation = judged("aabb", "aabb")
    assert evaluation.values()["f1_macro"] == 1
    assert evaluation.values()["balanced_accuracy"] == 1
    assert evaluation.confusion == ((2, 0, 0), (0, 2, 0), (0, 0, 0))


def test_confused_pairs_come_with_the_most_frequent_first() -> None:
    pairs = judged("aaaabbbbbc", "abbcaaabba").confused_pairs
    assert [(one.actual, one.predicted, one.count, one.share) for one in pairs] == [
        ("b", "a", 3, 0.6),
        ("a", "b", 2, 0.5),
        ("c", "a", 1, 1.0),
        ("a", "c", 1, 0.25),
    ]


def test_reliability_bins_add_up_to_the_calibration_error() -> None:
    probabilities = np.random.default_rng(3).dirichlet(np.full(3, 0.5), size=300)
    evaluation = evaluate(
        probabilities,
        records=records(list("abc") * 100),
        classes=list("abc"),
        config=CONFIG,
        seed=1,
    )
    bins = evaluation.reliability
    error = sum(one.count * abs(one.accuracy - one.confidence) for one in bins) / 300
    assert sum(one.count for one in bins) == 300
    assert error == pytest.approx(evaluation.values()["calibration_error"])
    assert all(one.low <= one.confidence <= one.high for one in bins)
    assert [one.low for one in bins] == [0, *(one.high for one in bins[:-1])]
    assert bins[-1].high == 1
    assert [one.accuracy for one in bins if not one.count] == [0.0] * 5  # below one third


@pytest.mark.parametrize(("classes", "expected"), [("abcde", False), ("abcdef", True)])
def test_top_5_is_there_where_it_can_be_missed(classes: str, expected: bool) -> None:
    assert ("top5_accuracy" in judged("ab", "aa", classes=classes).metrics) == expected


def test_the_same_seed_gives_the_same_evaluation() -> None:
    assert judged("abcabc", "abcaaa") == judged("abcabc", "abcaaa")


def test_probabilities_of_a_diverged_model_are_refused() -> None:
    probabilities = np.array([[np.nan, 0.5]])
    with pytest.raises(DarkroomError, match=r"diverged.*learning_rate"):
        evaluate(probabilities, records=records(["a"]), classes=["a", "b"], config=CONFIG, seed=1)


def test_a_split_without_images_is_refused() -> None:
    with pytest.raises(UserError, match=r"no images.*data\.test_fraction"):
        evaluate(np.empty((0, 2)), records=[], classes=["a", "b"], config=CONFIG, seed=1)


def test_classes_that_the_model_does_not_know_are_named() -> None:
    with pytest.raises(UserError, match=r"does not know: 'x'.*knows 'a', 'b'"):
        evaluate(
            np.full((2, 2), 0.5), records=records(["a", "x"]), classes="ab", config=CONFIG, seed=1
        )


def test_probabilities_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(1, 3\), not \(1, 2\)"):
        evaluate(np.ones((1, 3)) / 3, records=records(["a"]), classes="ab", config=CONFIG, seed=1)


def test_eight_thousand_images_of_133_classes_take_seconds() -> None:
    generator = np.random.default_rng(0)
    names = [f"breed {number}" for number in range(133)]
    probabilities = generator.dirichlet(np.full(133, 0.05), size=8000).astype(np.float32)
    labels = [names[index] for index in generator.integers(133, size=8000)]
    start = time.process_time()
    evaluation = evaluate(
        probabilities, records=records(labels), classes=names, config=EvaluationConfig(), seed=1
    )
    text = evaluation.model_dump_json()
    assert time.process_time() - start < 8
    assert len(text) < 9e6


def test_half_of_the_sampled_predictions_are_wrong_where_there_are_enough() -> None:
    evaluation = judged("aaaabbbb" * 5, "aabbbbaa" * 5)
    wrong, right = sample_predictions(evaluation, count=10, seed=1)
    assert [one.correct for one in wrong + right] == [False] * 5 + [True] * 5
    assert (wrong, right) == sample_predictions(evaluation, count=10, seed=1)
    assert (wrong, right) != sample_predictions(evaluation, count=10, seed=2)


@pytest.mark.parametrize(
    ("predicted", "counts"),
    [("aaaaaabbbb", (0, 6)), ("aaaaaabbba", (1, 5)), ("bbbbbbaaaa", (6, 0))],
)
def test_the_sample_is_filled_with_what_there_is(predicted: str, counts: tuple[int, int]) -> None:
    wrong, right = sample_predictions(judged("aaaaaabbbb", predicted), count=6, seed=1)
    assert (len(wrong), len(right)) == counts


def test_the_most_confident_mistakes_are_sampled() -> None:
    probabilities = np.array([[0.1, 0.9], [0.4, 0.6], [0.2, 0.8], [0.9, 0.1]])
    evaluation = evaluate(
        probabilities, records=records(list("aaaa")), classes="ab", config=CONFIG, seed=1
    )
    wrong, _ = sample_predictions(evaluation, count=2, seed=1)
    assert [one.probability for one in wrong] == [0.9]


@pytest.mark.parametrize(
    ("actual", "predicted", "confidence", "expected"),
    [
        ("ab" * 50, "ab" * 50, 0.99, "Not one of 100 images"),
        ("ab" * 50, "ab" * 50, 0.99, "up to 3.7%"),
        ("aaab" * 20, "aaaa" * 20, 0.99, "“b” is recognised worst"),
        ("aaab" * 20, "aaaa" * 20, 0.99, "“b” taken for “a” (20 images, 100% of “b”)"),
        ("aaab" * 20, "aaaa" * 20, 0.99, "20 images were classified wrongly with a probability"),
        ("aaab" * 20, "aaaa" * 20, 0.99, "overconfident"),
        ("abc" * 30 + "ab", "abc" * 30 + "bc", 0.8, "No class was taken for the same other one"),
        ("ab" * 5, "aaaaabbbab", 0.8, "It is not shown that the model does better than guessing"),
        ("ab" * 50, "ab" * 50, 0.6, "underconfident"),
        ("aaab" * 20, "aaaa" * 20, 0.8, "No image at all was taken for “b”"),
        ("aaab", "aaaa", 0.8, "Fewer than 10 images in the test split: “a”, “b”, “c”"),
        ("aaab" * 5, "aaaa" * 5, 0.8, "the accuracy is known only to lie between"),
    ],
)
def test_findings_say_what_stands_out(
    actual: str, predicted: str, confidence: float, expected: str
) -> None:
    found = findings(judged(actual, predicted, confidence=confidence))
    assert any(expected in finding for finding in found), found


def test_findings_do_not_cry_wolf() -> None:
    actual, predicted = "abc" * 200, "abc" * 199 + "abb"
    found = findings(judged(actual, predicted, confidence=0.98))
    assert len(found) == 2  # the one mistake, and that it was a confident one
