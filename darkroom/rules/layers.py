"""Layers that learn though they should not, and layers that should and do not."""

import numpy as np

from darkroom.rules.advising import always, now
from darkroom.rules.evidence import Evidence, Kind, Statistics
from darkroom.rules.findings import Hit
from darkroom.rules.rule import NotApplicableError, Rule
from darkroom.rules.series import first_run, rate_shares

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


RULES = (
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
