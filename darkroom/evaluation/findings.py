"""What in an evaluation deserves a look: sentences for people, and pictures to show."""

import numpy as np

from darkroom.evaluation.evaluate import ClassScore, Evaluation, Prediction

CONFIDENT = 0.9
"""Probability from which a mistake is called confident."""

_FEW_IMAGES = 10
"""Below it one image moves a class's recall by more than ten points."""
_POOR_F1 = 0.8
_WIDE_INTERVAL = 0.1
_POOR_CALIBRATION = 0.05
_NAMED_CLASSES = 5


def findings(evaluation: Evaluation) -> list[str]:
    """What to look at next, most useful first; never empty."""
    found = [
        _chance_level(evaluation),
        _no_mistakes(evaluation),
        _weakest_class(evaluation),
        _most_confused(evaluation),
        _confident_mistakes(evaluation),
        _calibration(evaluation),
        _never_predicted(evaluation),
        _few_images(evaluation),
        _wide_interval(evaluation),
    ]
    return [finding for finding in found if finding] or ["Nothing stands out."]


def sample_predictions(
    evaluation: Evaluation, *, count: int, seed: int
) -> tuple[list[Prediction], list[Prediction]]:
    """Wrong and right predictions to look at: half of each, as far as there are enough.

    The wrong ones are the most confident, the right ones are drawn by seed; both are
    sorted by probability, the highest first.
    """
    ranked = sorted(evaluation.predictions, key=lambda one: (-one.probability, one.path))
    wrong = [prediction for prediction in ranked if not prediction.correct]
    right = [prediction for prediction in ranked if prediction.correct]
    wanted = min(len(right), max(count // 2, count - len(wrong)))
    drawn = np.random.default_rng(seed).choice(len(right), size=wanted, replace=False)
    return wrong[: count - wanted], [right[index] for index in sorted(drawn)]


def _chance_level(evaluation: Evaluation) -> str:
    """By accuracy and by balanced accuracy: classes may have been weighed."""
    largest = max(evaluation.per_class, key=lambda score: score.support)
    share = largest.support / len(evaluation.predictions)
    classes = sum(score.support > 0 for score in evaluation.per_class)
    if classes < 2:
        return ""
    low, _ = evaluation.metrics["accuracy"].interval or (0.0, 1.0)
    balanced, _ = evaluation.metrics["balanced_accuracy"].interval or (0.0, 1.0)
    if low > share or balanced > 1 / classes:
        return ""
    return (
        "It is not shown that the model does better than guessing: always answering "
        f"“{largest.name}” would be right in {share:.0%} of the images, its accuracy may be as "
        f"low as {low:.0%}."
    )


def _no_mistakes(evaluation: Evaluation) -> str:
    images = len(evaluation.predictions)
    low, _ = evaluation.metrics["accuracy"].interval or (0.0, 1.0)
    if not all(prediction.correct for prediction in evaluation.predictions):
        return ""
    return (
        f"Not one of {images:,} images was classified wrongly. That is compatible with an error "
        f"rate of up to {1 - low:.1%}; more test images would tell."
    )


def _weakest_class(evaluation: Evaluation) -> str:
    tested = [score for score in evaluation.per_class if score.support]
    weakest = min(tested, key=lambda score: (score.f1, -score.support))
    if weakest.f1 >= _POOR_F1:
        return ""
    cause = (
        "many of its images are taken for something else"
        if weakest.recall <= weakest.precision
        else "much that is taken for it is something else"
    )
    return (
        f"“{weakest.name}” is recognised worst: precision {weakest.precision:.2f}, recall "
        f"{weakest.recall:.2f} on {_images(weakest.support)}, so {cause}."
    )


def _most_confused(evaluation: Evaluation) -> str:
    if not evaluation.confused_pairs:
        return ""
    pair = evaluation.confused_pairs[0]
    if pair.count == 1 and len(evaluation.confused_pairs) > 1:
        return "No class was taken for the same other one twice."
    return (
        f"The most frequent mistake: “{pair.actual}” taken for “{pair.predicted}” "
        f"({_images(pair.count)}, {pair.share:.0%} of “{pair.actual}”)."
    )


def _confident_mistakes(evaluation: Evaluation) -> str:
    """Northcutt, Athalye and Mueller, Pervasive Label Errors in Test Sets, NeurIPS 2021."""
    count = sum(
        not prediction.correct and prediction.probability >= CONFIDENT
        for prediction in evaluation.predictions
    )
    if not count:
        return ""
    were = "was" if count == 1 else "were"
    return (
        f"{_images(count)} {were} classified wrongly with a probability of {CONFIDENT:.0%} or "
        "more: check their labels first, such mistakes are often mislabelled images."
    )


def _calibration(evaluation: Evaluation) -> str:
    error = evaluation.metrics["calibration_error"]
    if error.interval is None or error.interval[0] < _POOR_CALIBRATION:
        return ""
    count = len(evaluation.predictions)
    confidence = sum(prediction.probability for prediction in evaluation.predictions) / count
    accuracy = evaluation.metrics["accuracy"].value
    verdict = "overconfident" if confidence > accuracy else "underconfident"
    return (
        f"The model is {verdict}: its mean probability is {confidence:.0%}, its accuracy "
        f"{accuracy:.0%}. Take its probabilities with caution where a threshold depends on them."
    )


def _never_predicted(evaluation: Evaluation) -> str:
    missed = [score for score in evaluation.per_class if score.support and not score.predicted]
    return f"No image at all was taken for {_names(missed)}." if missed else ""


def _few_images(evaluation: Evaluation) -> str:
    few = [score for score in evaluation.per_class if score.support < _FEW_IMAGES]
    if not few:
        return ""
    return (
        f"Fewer than {_FEW_IMAGES} images in the {evaluation.split} split: {_names(few)}. Their "
        "scores by class say little."
    )


def _wide_interval(evaluation: Evaluation) -> str:
    low, high = evaluation.metrics["accuracy"].interval or (0.0, 1.0)
    if high - low <= _WIDE_INTERVAL:
        return ""
    return (
        f"With {_images(len(evaluation.predictions))} the accuracy is known only to lie between "
        f"{low:.1%} and {high:.1%}: differences between runs within that range mean nothing."
    )


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count:,} images"


def _names(scores: list[ClassScore]) -> str:
    shown = ", ".join(f"“{score.name}”" for score in scores[:_NAMED_CLASSES])
    more = len(scores) - _NAMED_CLASSES
    return f"{shown} and {more} more" if more > 0 else shown
