"""Gradients that vanish."""

import numpy as np
from numpy.typing import NDArray

from darkroom.rules.advising import always
from darkroom.rules.evidence import Evidence, Statistics
from darkroom.rules.findings import Hit
from darkroom.rules.rule import NotApplicableError, Rule
from darkroom.rules.series import at_steps, first_run, line_plot


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
            hits.append(_hit(name, gradients=gradients, at=at, threshold=threshold))
    if 100 * len(hits) / len(names) < threshold_layers:
        return []
    return sorted(hits, key=lambda hit: float(hit.figures["mean_absolute_gradient"]))


def _learning(
    evidence: Evidence, gradients: Statistics, *, while_loss_above: float
) -> NDArray[np.bool_]:
    """Whether the loss is not below a limit; True where it is unknown."""
    losses = at_steps(evidence.steps, evidence.steps.loss, wanted=gradients.steps)
    return ~(losses < while_loss_above)


def _hit(name: str, *, gradients: Statistics, at: int, threshold: float) -> Hit:
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


RULES = (
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
