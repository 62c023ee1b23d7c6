"""Rules over weights: initialisation, gradients, updates, layers against each other."""

import math
import re

import numpy as np
from numpy.typing import NDArray

from darkroom.debugging.rules.rule import NotApplicableError, Rule, always, now, toward_usual_rate
from darkroom.debugging.rules.series import (
    at_steps,
    chance_loss,
    first_run,
    line_plot,
    peak_rate,
    rate_shares,
)
from darkroom.debugging.rules.values import trainable_weights
from darkroom.telemetry.evidence import Evidence, Floats, Kind, Statistics
from darkroom.telemetry.findings import Hit

# --- gradients ---
# Gradients that vanish.


def vanishing_gradient(
    evidence: Evidence,
    *,
    threshold: float = 1e-7,
    persistence: int = 3,
    threshold_layers: float = 10.0,
    biases: bool = False,
    while_loss_above: float = 0.1,
) -> list[Hit]:
    """The mean absolute gradient of a tensor is below `threshold`.

    SageMaker Debugger's VanishingGradient and its threshold; it fires for any tensor at any
    step. The guards are ours: some gradients are small by nature, such as those of biases
    before batch-norm, of layers beneath a head that starts at zero, or of a network that
    has learned everything.

    Args:
        threshold: of mean |g|.
        persistence: recorded steps in a row at which it holds.
        threshold_layers: percent of the gradients that have to vanish.
        biases: whether those of biases count.
        while_loss_above: nats; at a lower loss there is nothing left to learn.
    """
    names = [
        name
        for name in evidence.tensors.names("gradient")
        if biases or name.rsplit(".", 1)[-1] != "bias"
    ]
    if not names:
        raise NotApplicableError("no gradients were recorded")
    hits = []
    for name in names:
        gradients = evidence.tensors.statistics(name, kind="gradient")
        small = (gradients["abs_mean"] < threshold) & _learning(
            evidence, gradients, while_loss_above=while_loss_above
        )
        at = first_run(small, length=persistence)
        if at is not None:
            hits.append(_gradient_hit(name, gradients=gradients, at=at, threshold=threshold))
    if 100 * len(hits) / len(names) < threshold_layers:
        return []
    return sorted(hits, key=lambda hit: float(hit.figures["mean_absolute_gradient"]))


def _learning(
    evidence: Evidence, gradients: Statistics, *, while_loss_above: float
) -> NDArray[np.bool_]:
    """Whether the loss is not below a limit; True where it is unknown."""
    losses = at_steps(evidence.steps, evidence.steps.loss, wanted=gradients.steps)
    return ~(losses < while_loss_above)


def _gradient_hit(name: str, *, gradients: Statistics, at: int, threshold: float) -> Hit:
    sizes = gradients["abs_mean"]
    return Hit(
        where=name,
        step=int(gradients.steps[at]),
        figures={"mean_absolute_gradient": float(sizes[at]), "threshold": threshold},
        plot=line_plot(
            gradients.steps,
            lines={name: sizes},
            y_label="mean |gradient|",
            threshold=threshold,
            log=True,
        ),
    )


GRADIENT_RULES = (
    Rule(
        name="vanishing_gradient",
        title="Gradients vanish",
        severity="warning",
        meaning="Almost no gradient arrives at these layers: they learn next to nothing.",
        advice=always(
            "look at the layers behind the named one: dead activations or zero weights "
            "swallow the gradient",
            "start from trained weights (model.weights: imagenet)",
            "set training.mixed_precision to 'off', if small gradients are lost to rounding",
        ),
        evaluate=vanishing_gradient,
    ),
)


# --- initialisation ---
# Initial weights from which a network cannot learn well.

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


INITIALISATION_RULES = (
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


# --- layers ---
# Layers that learn though they should not, and layers that should and do not.

_PARAMETERS: tuple[Kind, ...] = ("weight", "bias")
_BUFFERS = ("running_mean", "running_var")


def frozen_layer_changes(evidence: Evidence, *, atol: float = 1e-8) -> list[Hit]:
    """A parameter that `model.fine_tune` freezes changed, or a frozen layer's batch-norm did.

    Args:
        atol: change, beyond 1e-5 of its size, above which an element changed;
            numpy.allclose's, as in unchanged_tensor.
    """
    frozen = {name for name, learns in evidence.facts.expected_trainable.items() if not learns}
    if not frozen:
        raise NotApplicableError("no layer is frozen")
    hits = []
    for kind in _PARAMETERS:
        for name in evidence.tensors.names(kind):
            if name not in frozen and not _is_frozen_buffer(name, frozen=frozen):
                continue
            values = evidence.tensors.statistics(name, kind=kind)
            at = first_run(values["change_excess"] > atol, length=1)
            if at is not None:
                figures: dict[str, float | str] = {
                    "largest_change": float(values["change_excess"][at]),
                    "trainable": str(evidence.facts.trainable.get(name, False)),
                }
                hits.append(Hit(name, int(values.steps[at]), figures))
    return sorted(hits, key=lambda hit: hit.step or 0)


def layer_not_learning(
    evidence: Evidence,
    *,
    persistence: int = 3,
    span: int = 20,
    atol: float = 1e-8,
    rate_share: float = 0.01,
) -> list[Hit]:
    """A layer that should learn is frozen, gets no gradient, or stays as it is.

    Args:
        persistence: recorded steps in a row at which the gradient is zero, or nothing changes.
        span: training steps that these span at least, where nothing changes.
        atol: change, beyond 1e-5 of its size, up to which an element did not change;
            numpy.allclose's.
        rate_share: of the peak learning rate; at steps below it weights may stay.
    """
    expected = [name for name, learns in evidence.facts.expected_trainable.items() if learns]
    if not expected:
        raise NotApplicableError("which layers should learn is unknown")
    weights, gradients = ({*evidence.tensors.names(kind)} for kind in ("weight", "gradient"))
    hits = []
    for name in expected:
        if not evidence.facts.trainable.get(name, True):
            hits.append(Hit(name, 0, {"problem": "the optimiser does not have it"}))
        elif name in weights:
            hit = _without_gradient(
                evidence, name, recorded=gradients, persistence=persistence
            ) or _still(
                evidence,
                name,
                persistence=persistence,
                span=span,
                atol=atol,
                rate_share=rate_share,
            )
            hits += [hit] if hit else []
    return sorted(hits, key=lambda hit: hit.step or 0)


def _without_gradient(
    evidence: Evidence, name: str, *, recorded: set[str], persistence: int
) -> Hit | None:
    if name not in recorded:
        looks = len(evidence.tensors.statistics(name, kind="weight").steps)
        if recorded and looks >= persistence:
            return Hit(name, 0, {"problem": "no gradient reaches it"})
        return None
    gradients = evidence.tensors.statistics(name, kind="gradient")
    at = first_run((gradients["minimum"] == 0) & (gradients["maximum"] == 0), length=persistence)
    if at is None:
        return None
    return Hit(name, int(gradients.steps[at]), {"problem": "its gradient is zero"})


def _still(
    evidence: Evidence,
    name: str,
    *,
    persistence: int,
    span: int,
    atol: float,
    rate_share: float,
) -> Hit | None:
    """Nothing changed at any look so far, while there was something to take a step by."""
    values: Statistics = evidence.tensors.statistics(name, kind="weight")
    shares = rate_shares(evidence, wanted=values.steps)
    compared = np.isfinite(values["change_excess"]) & (shares >= rate_share)
    enough = compared.sum() >= persistence and values.steps[-1] - values.steps[0] >= span
    if not enough or (values["change_excess"][compared] > atol).any():
        return None
    return Hit(name, int(values.steps[0]), {"problem": "it does not change"})


def _is_frozen_buffer(name: str, *, frozen: set[str]) -> bool:
    """Whether it is batch-norm's running mean or variance in a layer whose weight is frozen."""
    layer, _, last = name.rpartition(".")
    return last in _BUFFERS and f"{layer}.weight" in frozen


def _learning_advice(hit: Hit, evidence: Evidence) -> tuple[str, ...]:
    return (
        f"model.fine_tune{now(evidence, 'fine_tune')}: 'all' trains every layer, 'head' the "
        "last one alone",
        f"check that {hit.where} has requires_grad and is given to the optimiser",
        "look for what swallows its gradient: zero weights or dead activations behind it",
    )


LAYER_RULES = (
    Rule(
        name="layer_not_learning",
        title="A layer that should learn does not",
        severity="error",
        meaning="It keeps the values it began with: the rest has to make up for it.",
        advice=_learning_advice,
        evaluate=layer_not_learning,
    ),
    Rule(
        name="frozen_layer_changes",
        title="A frozen layer changes",
        severity="error",
        meaning="Weights that were to stay as they came do not.",
        advice=always(
            "give the optimiser only what model.fine_tune trains",
            "leave frozen batch-norm layers in eval mode while training",
        ),
        evaluate=frozen_layer_changes,
    ),
)


# --- updates ---

NEGLIGIBLE_WEIGHT = 1e-4
"""Mean |w| below which a tensor began at nought, as class tokens and layer scales do: its
first step is infinitely large beside it. Trained and random weights have 0.01 to 1."""


def weight_update_ratio(
    evidence: Evidence,
    *,
    num_steps: int | None = None,
    large_threshold: float = 10.0,
    small_threshold: float = 1e-8,
    epsilon: float = 1e-9,
    persistence: int = 3,
    rate_share: float = 0.01,
    negligible: float = NEGLIGIBLE_WEIGHT,
) -> list[Hit]:
    """mean|w − w'| / (mean|w'| + epsilon) is above `large_threshold` or below the small one.

    SageMaker Debugger's WeightUpdateRatio, of trainable weights. Its documentation leaves
    open how elements are aggregated: by their means, here.

    Args:
        num_steps: w' is the earliest value that is no more steps back; null: the recorded
            one before. A number needs whole tensors.
        large_threshold: once is enough.
        small_threshold: has to last.
        epsilon: as recorded, 1e-9; another needs whole tensors.
        persistence: recorded steps in a row below `small_threshold`; ours: float16 leaves
            out steps whose gradient overflows. 1 in AWS' rule.
        rate_share: of the peak learning rate; at steps below it small updates are right;
            ours. 0 in AWS' rule.
        negligible: mean |w'| below which there is no sensible ratio; ours. 0 in AWS' rule.
    """
    hits = []
    for name, weights in trainable_weights(evidence).items():
        if num_steps is None and epsilon == 1e-9:
            ratios = weights["update_ratio"]
        else:
            ratios = _ratios(evidence, name, weights=weights, num_steps=num_steps, epsilon=epsilon)
        known = ratios[_judged(weights, negligible=negligible)]
        steps = weights.steps[_judged(weights, negligible=negligible)]
        idle = (known < small_threshold) & (rate_shares(evidence, wanted=steps) >= rate_share)
        for condition, length, threshold in (
            (known > large_threshold, 1, large_threshold),
            (idle, persistence, small_threshold),
        ):
            at = first_run(condition, length=length)
            if at is not None:
                hits.append(
                    _update_hit(name, steps=steps, ratios=known, at=at, threshold=threshold)
                )
    return sorted(hits, key=lambda hit: (hit.step or 0, -float(hit.figures["update_ratio"])))


def updates_at_peak(evidence: Evidence) -> tuple[NDArray[np.int64], Floats]:
    """How far a step at the peak learning rate moves the weights, as a share of their size.

    Between two looks the weights moved by the steps from the first up to the second; their
    learning rates add up to some multiple of the peak, by which the ratio is divided. Exact
    for steps in one direction, a lower bound otherwise.

    Returns:
        (looks,) steps, and the upper quartile over the trainable weights: about the median
        of the convolutions, as batch-norm's weights, near 1, move least.

    Raises:
        NotApplicableError: no weights were looked at twice, or no learning rates are known.
    """
    log, peak = evidence.steps, peak_rate(evidence)
    if not (len(log) and peak > 0):
        raise NotApplicableError("no learning rates were recorded")
    passed = np.concatenate([[0.0], np.cumsum(log.learning_rate)]) / peak
    by_step: dict[int, list[float]] = {}
    for weights in trainable_weights(evidence).values():
        if len(weights.steps) < 2:
            continue
        place = np.searchsorted(log.step, weights.steps)
        taken = np.diff(passed[place])
        usable = (weights["abs_mean"][:-1] >= NEGLIGIBLE_WEIGHT) & (taken > 0)
        usable &= np.isfinite(weights["update_ratio"][1:])
        for index in np.flatnonzero(usable).tolist():
            ratio = float(weights["update_ratio"][index + 1] / taken[index])
            by_step.setdefault(int(weights.steps[index + 1]), []).append(ratio)
    if not by_step:
        raise NotApplicableError("no weights were looked at twice")
    steps = sorted(by_step)
    quartiles = [float(np.percentile(by_step[step], 75)) for step in steps]
    return np.array(steps, dtype=np.int64), np.array(quartiles)


def _judged(weights: Statistics, *, negligible: float) -> NDArray[np.bool_]:
    """The looks whose earlier value was no nought."""
    before = np.concatenate([[np.inf], weights["abs_mean"][:-1]])[: len(weights.steps)]
    judged: NDArray[np.bool_] = before >= negligible
    return judged


def _ratios(
    evidence: Evidence, name: str, *, weights: Statistics, num_steps: int | None, epsilon: float
) -> Floats:
    """The ratios from whole tensors."""
    steps = weights.steps
    values = [evidence.tensors.value(name, kind="weight", step=int(step)) for step in steps]
    if any(value is None for value in values):
        raise NotApplicableError(
            "num_steps and epsilon need whole tensors (recording.tensors: full)"
        )
    ratios = np.full(len(steps), np.nan)
    for at in range(1, len(steps)):
        reach = steps[at] - num_steps if num_steps is not None else steps[at - 1]
        before = int(np.searchsorted(steps, reach))
        if before < at:
            now, then = (np.asarray(values[i], dtype=np.float64) for i in (at, before))
            ratios[at] = np.abs(now - then).mean() / (np.abs(then).mean() + epsilon)
    return ratios


def _update_hit(
    name: str, *, steps: NDArray[np.int64], ratios: Floats, at: int, threshold: float
) -> Hit:
    return Hit(
        where=name,
        step=int(steps[at]),
        figures={"update_ratio": float(ratios[at]), "threshold": threshold},
        plot=line_plot(
            steps, lines={name: ratios}, y_label="update ratio", threshold=threshold, log=True
        ),
    )


def _advice(hit: Hit, evidence: Evidence) -> tuple[str, ...]:
    if float(hit.figures["update_ratio"]) > float(hit.figures["threshold"]):
        return (
            toward_usual_rate(evidence, factor=0.1),
            "lengthen training.warmup_epochs",
        )
    return (
        "see whether a gradient reaches the named layer (layer_not_learning says so)",
        toward_usual_rate(evidence, factor=10),
    )


UPDATE_RULES = (
    Rule(
        name="weight_update_ratio",
        title="Weights move too far, or not at all",
        severity="warning",
        meaning=(
            "A step should move weights by about a thousandth of their size. One that is many "
            "times as large as the weights forgets them; one near nothing learns nothing."
        ),
        advice=_advice,
        evaluate=weight_update_ratio,
    ),
)
