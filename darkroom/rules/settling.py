"""Whether batch-norm's running statistics have come so far that a validation says anything."""

from darkroom.rules.advising import now
from darkroom.rules.evidence import Evidence
from darkroom.rules.findings import Hit
from darkroom.rules.rule import NotApplicableError, Rule

_SLOW_STATISTICS = {
    "mobilenet_v3": 0.01,
    **dict.fromkeys(("efficientnet_b5", "efficientnet_b6", "efficientnet_b7"), 0.01),
    "mnasnet": 0.0003,
}
"""Momentum of batch-norm's running statistics where it is not torch's 0.1, by the start of
the architecture's name; torchvision's source."""
_MOST_SETTLING_STEPS = 1000


def validation_unsettled(evidence: Evidence, *, share_of_training: float = 0.5) -> list[Hit]:
    """Too few steps for batch-norm, and validation is far behind training.

    Args:
        share_of_training: of the last epoch's training accuracy, below which that of the
            validation is far behind; ours: what overfits that much has taken more steps.
    """
    if not evidence.epochs:
        raise NotApplicableError("no epoch has ended")
    last = evidence.epochs[-1]
    validation = last.validation.get("accuracy")
    if validation is None or is_settled(evidence):
        return []
    if validation >= share_of_training * last.train_accuracy:
        return []
    figures: dict[str, float | str] = {
        "training_accuracy": last.train_accuracy,
        "validation_accuracy": validation,
        "steps": float(len(evidence.steps)),
        "steps_needed": float(steps_to_settle(evidence)),
    }
    return [Hit("", int(evidence.steps.step[-1]), figures)]


def check_settled(evidence: Evidence) -> None:
    """Refuse to judge a validation that batch-norm still spoils.

    Raises:
        NotApplicableError: too few steps were taken.
    """
    if not is_settled(evidence):
        raise NotApplicableError(
            f"after {len(evidence.steps)} of about {steps_to_settle(evidence)} steps batch-norm's "
            "running statistics, by which the network is validated, have not settled"
        )


def is_settled(evidence: Evidence) -> bool:
    """Whether enough steps were taken, or it is not known how many were."""
    return not 0 < len(evidence.steps) < steps_to_settle(evidence)


def steps_to_settle(evidence: Evidence) -> int:
    """Steps until batch-norm's running statistics are those of the network; 0: unknown.

    They follow the batches by a momentum, and the network is validated by them: three times its
    inverse after a random start a twentieth of the start is left. Each layer's also chase those
    of the layers before it: from random weights a mobilenet_v2, of 105 weights, was at 12 % in
    validation after 60 steps, and at 76 % in training. So a tenth of the inverse is asked for
    each weight; a third of both where weights are trained.
    """
    facts = evidence.facts
    if not facts.architecture:  # tensors alone: nothing is known of it
        return 0
    starts = (m for name, m in _SLOW_STATISTICS.items() if facts.architecture.startswith(name))
    layers = sum(name.endswith(".weight") for name in facts.expected_trainable)
    times = max(3.0, layers / 10)
    if facts.hyperparameters.get("weights") != "none":
        times /= 3
    return min(round(times / next(starts, 0.1)), _MOST_SETTLING_STEPS)


def _advice(hit: Hit, evidence: Evidence) -> tuple[str, ...]:
    return (
        f"train longer: training.epochs{now(evidence, 'epochs')}; believe no validation before "
        f"about {hit.figures['steps_needed']:.0f} steps",
        "start from trained weights (model.weights: imagenet): their statistics are there",
    )


RULES = (
    Rule(
        name="validation_unsettled",
        title="Validation says nothing yet",
        severity="note",
        meaning=(
            "The network is validated by batch-norm's running statistics, which have not "
            "followed its weights so far: it is better than its validation looks."
        ),
        advice=_advice,
        evaluate=validation_unsettled,
        live=False,
    ),
)
