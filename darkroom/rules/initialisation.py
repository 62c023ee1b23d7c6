"""Initial weights from which a network cannot learn well."""

import math
import re

import numpy as np

from darkroom.rules.advising import always
from darkroom.rules.evidence import Evidence
from darkroom.rules.findings import Hit
from darkroom.rules.rule import NotApplicableError, Rule
from darkroom.rules.series import chance_loss, first_run

_FIRST_LOSSES = 3


def poor_weight_initialization(
    evidence: Evidence,
    *,
    activation_inputs_regex: str | None = None,
    threshold: float = 1e5,
    distribution_range: float = 0.0,
    patience: int | None = None,
    steps: int = 1,
    initial_loss_ratio: float | None = 1.7,
    initial_loss_excess: float = 1.0,
) -> list[Hit]:
    """In the first `steps`, activations, gradients or the loss show bad initial weights.

    SageMaker Debugger's PoorWeightInitialization, whose own defaults (threshold 10,
    distribution_range 0.001, patience 5) every residual network and every warm-up meets.

    Args:
        activation_inputs_regex: sought in the names of activations; null: all.
        threshold: largest over smallest variance of what goes into activations; measured
            from random weights: resnet18 2, mobilenet_v2 2, mobilenet_v3_small 70, for its
            squeeze-and-excitation gates. Trained weights may be less even.
        distribution_range: 95th less 5th percentile of each gradient; fires below it.
        patience: steps without a lower loss; null: any number.
        steps: at the start, that are looked at; the first alone, as later ones show what the
            learning rate did. 10 in AWS' rule.
        initial_loss_ratio: ours: the first loss over that of guessing, ln C, which sound
            weights have at first (Karpathy, A recipe for training neural networks, 2019,
            "verify loss @ init"); measured from random weights of ten classes: 1.0 to 1.2,
            all weights ten times as large: 2.2 to 5. Null: any.
        initial_loss_excess: nats that it has to be above it, too: of two classes a sound head
            may prefer one by chance.
    """
    hits = [
        *_uneven(evidence, regex=activation_inputs_regex, threshold=threshold, steps=steps),
        *_narrow(evidence, distribution_range=distribution_range, steps=steps),
        *_stuck(evidence, patience=patience, steps=steps),
        *_costly(evidence, ratio=initial_loss_ratio, excess=initial_loss_excess),
    ]
    if not hits and not (len(evidence.steps) or evidence.tensors.names("gradient")):
        raise NotApplicableError("neither losses, gradients nor activations were recorded")
    return sorted(hits, key=lambda hit: "first_loss" not in hit.figures)


def _uneven(evidence: Evidence, *, regex: str | None, threshold: float, steps: int) -> list[Hit]:
    variances = _input_variances(evidence, regex=regex, steps=steps)
    for step in sorted(variances):
        by_layer = variances[step]
        smallest, largest = (choose(by_layer, key=by_layer.__getitem__) for choose in (min, max))
        ratio = by_layer[largest] / max(by_layer[smallest], 1e-300)
        if ratio > threshold and by_layer[smallest] > 0:
            figures: dict[str, float | str] = {
                "variance_ratio": ratio,
                "threshold": threshold,
                "smallest_variance_in": smallest,
            }
            return [Hit(largest, step, figures)]
    return []


def _input_variances(
    evidence: Evidence, *, regex: str | None, steps: int
) -> dict[int, dict[str, float]]:
    """By step and activation."""
    variances: dict[int, dict[str, float]] = {}
    for name in evidence.tensors.names("activation_input"):
        if not re.search(regex or "", name):
            continue
        inputs = evidence.tensors.statistics(name, kind="activation_input")
        for step, deviation in zip(inputs.steps.tolist(), inputs["std"].tolist(), strict=True):
            if step < steps and math.isfinite(deviation):
                variances.setdefault(step, {})[name] = deviation**2
    return variances


def _narrow(evidence: Evidence, *, distribution_range: float, steps: int) -> list[Hit]:
    hits = []
    for name in evidence.tensors.names("gradient"):
        gradients = evidence.tensors.statistics(name, kind="gradient")
        spread = gradients["p95"] - gradients["p5"]
        at = first_run((spread < distribution_range) & (gradients.steps < steps), length=1)
        if at is not None:
            figures: dict[str, float | str] = {
                "gradient_range": float(spread[at]),
                "distribution_range": distribution_range,
            }
            hits.append(Hit(name, int(gradients.steps[at]), figures))
    return sorted(hits, key=lambda hit: float(hit.figures["gradient_range"]))


def _stuck(evidence: Evidence, *, patience: int | None, steps: int) -> list[Hit]:
    losses = evidence.steps.loss[evidence.steps.step < steps]
    if patience is None or len(losses) <= patience:
        return []
    falls = np.diff(losses) < 0
    at = first_run(~falls, length=patience)
    if at is None:
        return []
    step = int(evidence.steps.step[at + patience])
    return [Hit("", step, {"steps_without_lower_loss": float(patience)})]


def _costly(evidence: Evidence, *, ratio: float | None, excess: float) -> list[Hit]:
    losses = evidence.steps.loss[:_FIRST_LOSSES]
    # The smallest: one step at too high a learning rate makes the later ones large.
    start = float(losses.min()) if len(losses) else math.nan
    chance = chance_loss(evidence.facts)
    if ratio is None or not start > max(ratio * chance, chance + excess):
        return []
    figures: dict[str, float | str] = {
        "first_loss": start,
        "loss_of_guessing": chance,
        "ratio_threshold": ratio,
    }
    return [Hit("", 0, figures)]


RULES = (
    Rule(
        name="poor_weight_initialization",
        title="The training starts from bad weights",
        severity="warning",
        meaning=(
            "A network that knows nothing should guess. This one starts far from it: its "
            "weights are too large or too uneven, and the first steps are spent on that."
        ),
        advice=always(
            "use initial weights as the architecture has them: model.weights 'imagenet' or 'none'",
            "check the file that model.weights names, if it is one",
        ),
        evaluate=poor_weight_initialization,
    ),
)
