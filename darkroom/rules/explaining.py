"""Which findings follow from which: data, so that a diagnosis begins with the causes."""

from collections.abc import Mapping, Sequence

from darkroom.rules.findings import SEVERITIES, Finding

_NOTHING_LEARNED = (
    *("loss_not_decreasing", "plateau", "underfitting", "overtraining"),
    *("class_imbalance", "confusion", "chance_level"),
)
_NO_GRADIENT = (
    *("vanishing_gradient", "layer_not_learning", "unchanged_tensor", "weight_update_ratio"),
    "learning_rate_too_low",
)
_UNSTABLE = (
    *("non_finite_loss", "exploding_tensor", "loss_spike", "weight_update_ratio", "dead_relu"),
    *("saturated_activation", "vanishing_gradient", "layer_not_learning"),
)
_RATE = "training.learning_rate"
"""Of which the cause alone says what it should be: one rate is advised, not several."""
_POOR_VALIDATION = ("overfit", "train_validation_divergence", "chance_level")
_LABELS = ("label_noise",)

EXPLAINS: Mapping[str, Sequence[str]] = {
    "check_input_images": (
        *("poor_weight_initialization", "learning_rate_too_high", "unchanged_tensor"),
        *(*_UNSTABLE, *_NOTHING_LEARNED, *_POOR_VALIDATION, *_LABELS),
    ),
    "all_zero": (
        *("dead_relu", "saturated_activation", "poor_weight_initialization"),
        *(*_NO_GRADIENT, *_NOTHING_LEARNED, *_POOR_VALIDATION, *_LABELS),
    ),
    "poor_weight_initialization": (
        *("learning_rate_too_high", "learning_rate_too_low", "unchanged_tensor"),
        *(*_UNSTABLE, *_NOTHING_LEARNED, *_POOR_VALIDATION, *_LABELS),
    ),
    "learning_rate_too_high": (
        *(*_UNSTABLE, *_NOTHING_LEARNED, *_POOR_VALIDATION, *_LABELS, "unchanged_tensor"),
    ),
    "noisy_batches": (
        *("small_batches", "loss_spike", "poor_weight_initialization", "learning_rate_too_high"),
        *(*_NOTHING_LEARNED, *_POOR_VALIDATION),
    ),
    "dead_relu": (*_NO_GRADIENT, *_NOTHING_LEARNED, *_POOR_VALIDATION, *_LABELS),
    "learning_rate_too_low": (
        *("unchanged_tensor", "layer_not_learning", "weight_update_ratio"),
        *(*_NOTHING_LEARNED, *_POOR_VALIDATION, *_LABELS),
    ),
    "layer_not_learning": (
        *("unchanged_tensor", "vanishing_gradient", "weight_update_ratio"),
        *(*_NOTHING_LEARNED, *_POOR_VALIDATION, *_LABELS),
    ),
    "vanishing_gradient": ("unchanged_tensor", "weight_update_ratio", *_NOTHING_LEARNED),
    "class_missing": ("class_imbalance", "confusion", *_POOR_VALIDATION),
    "label_noise": (*_NOTHING_LEARNED, *_POOR_VALIDATION),
    "non_finite_loss": ("exploding_tensor", "vanishing_gradient", "dead_relu"),
    "train_validation_divergence": ("overtraining",),
    "overfit": ("train_validation_divergence", "overtraining"),
}
"""By cause: what it brings about. The causes are in the order in which they are believed: of
two that explain one another the first is the cause."""


def explained(findings: Sequence[Finding]) -> list[Finding]:
    """The findings, those that follow from another one marked so, in the order of their rank.

    A note explains nothing.
    """
    titles = {
        finding.rule: finding.title
        for finding in findings
        if SEVERITIES.index(finding.severity) > 0
    }
    marked: dict[str, str] = {}
    for cause in (cause for cause in EXPLAINS if cause in titles):
        for finding in findings:
            follows = finding.rule in EXPLAINS[cause] and finding.rule not in marked
            if follows and marked.get(cause) != finding.rule:
                marked[finding.rule] = cause
    all_marked = [
        _marked(finding, cause=marked.get(finding.rule, ""), titles=titles) for finding in findings
    ]
    return sorted(all_marked, key=lambda finding: finding.rank)


def _marked(finding: Finding, *, cause: str, titles: Mapping[str, str]) -> Finding:
    if not cause:
        return finding
    advice = [f"first see to {cause}", *(one for one in finding.advice if _RATE not in one)]
    meaning = f"Probably follows from {titles[cause]!r} ({cause}). {finding.meaning}"
    return finding.model_copy(
        update={"follows_from": cause, "meaning": meaning, "advice": tuple(advice)}
    )
