"""How far weights move: SageMaker Debugger's WeightUpdateRatio."""

import numpy as np
from numpy.typing import NDArray

from darkroom.rules.advising import toward_usual_rate
from darkroom.rules.evidence import Evidence, Floats, Statistics
from darkroom.rules.findings import Hit
from darkroom.rules.rule import NotApplicableError, Rule
from darkroom.rules.selecting import trainable_weights
from darkroom.rules.series import first_run, line_plot, peak_rate, rate_shares

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
                hits.append(_hit(name, steps=steps, ratios=known, at=at, threshold=threshold))
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


def _hit(name: str, *, steps: NDArray[np.int64], ratios: Floats, at: int, threshold: float) -> Hit:
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


RULES = (
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
