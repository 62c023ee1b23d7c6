"""A learning rate that is too high or too low, by what it does to weights and loss."""

import numpy as np

from darkroom.rules.advising import clip_gradients, now, toward_usual_rate
from darkroom.rules.evidence import Evidence, Floats
from darkroom.rules.findings import Hit
from darkroom.rules.rule import NotApplicableError, Rule
from darkroom.rules.series import (
    chance_loss,
    finite_losses,
    first_loss,
    last_loss,
    line_plot,
    loss_plot,
    peak_rate,
    smoothed_losses,
)
from darkroom.rules.updates import updates_at_peak


def learning_rate_too_high(
    evidence: Evidence,
    *,
    update_threshold: float = 1.0,
    rise: float = 1.5,
    rise_alone: float = 5.0,
) -> list[Hit]:
    """Steps replace the weights and the loss rises, or the loss rises beyond all bounds.

    Args:
        update_threshold: how far a step at the peak rate moves weights, over their size. At
            1 it replaces them; 0.001 is usual (Karpathy, CS231n, "Ratio of weights:updates"),
            AdamW's first steps at 0.001 reach 0.05.
        rise: times that the loss, over 32 images or more, exceeds both its start and that of
            guessing; measured on healthy trainings: below 1.3. A loss that is no number
            counts as risen.
        rise_alone: times at which the loss alone is enough.
    """
    numbers, losses = smoothed_losses(evidence.steps)
    start = first_loss(evidence.steps)
    if not len(losses):  # a training that diverges at once has few steps
        numbers, losses = finite_losses(evidence.steps)
        start = float(losses.min()) if len(losses) else np.nan
    if len(losses) < 2:
        raise NotApplicableError("not enough losses were recorded yet")
    level = max(start, chance_loss(evidence.facts))
    highest = float(losses.max()) / level
    diverged = bool((~np.isfinite(evidence.steps.loss)).any())
    updates = _updates(evidence)
    largest = float(updates.max()) if len(updates) else np.nan
    moves = largest > update_threshold and (highest > rise or diverged)
    if not (moves or highest > rise_alone):
        return []
    needed = rise if moves else rise_alone
    risen = np.flatnonzero(losses > needed * level)
    # Where a number rose too little, the loss that is none is the rise.
    first = risen[0] if len(risen) else losses.argmax()
    figures: dict[str, float | str] = {
        "highest_loss_over_start": highest,
        "rise_threshold": needed,
        "learning_rate": peak_rate(evidence),
    }
    if np.isfinite(largest):
        figures |= {
            "first_update_over_weight": float(updates[0]),
            "update_over_weight": largest,
            "update_threshold": update_threshold,
        }
    plot = loss_plot(evidence, threshold=needed * level)
    return [Hit("", int(numbers[first]), figures, plot=plot)]


def learning_rate_too_low(
    evidence: Evidence,
    *,
    update_threshold: float = 1e-4,
    fall: float = 0.5,
    minimum_steps: int = 20,
) -> list[Hit]:
    """Steps hardly move the weights, and the loss falls slowly.

    Args:
        update_threshold: how far a step at the peak rate moves weights, over their size:
            a tenth of the 0.001 that is usual (Karpathy, CS231n, see above).
        fall: share by which the loss has to have fallen; a rate that gets that far is fine.
        minimum_steps: before them nothing is said.
    """
    if len(evidence.steps) < minimum_steps:
        raise NotApplicableError(f"fewer than {minimum_steps} steps were taken")
    looks, updates = updates_at_peak(evidence)
    start, end = first_loss(evidence.steps), last_loss(evidence.steps)
    fell = 1 - end / start if start > 0 else 1.0
    typical = float(np.median(updates))
    if not (typical < update_threshold and fell < fall):
        return []
    figures: dict[str, float | str] = {
        "update_over_weight": typical,
        "update_threshold": update_threshold,
        "loss_fell_by": fell,
        "fall_threshold": fall,
        "learning_rate": peak_rate(evidence),
    }
    plot = line_plot(
        looks,
        lines={"a step at the peak rate": updates},
        y_label="update over weight",
        threshold=update_threshold,
        log=True,
    )
    return [Hit("", None, figures, plot=plot)]


def _updates(evidence: Evidence) -> Floats:
    """By look; empty where no weights were looked at."""
    try:
        return updates_at_peak(evidence)[1]
    except NotApplicableError:
        return np.array([])


def _lower(hit: Hit, evidence: Evidence) -> tuple[str, ...]:
    """So that a step moves weights by a hundredth, judged by the first: later ones are larger
    or smaller, since the weights are by then."""
    update = hit.figures.get("first_update_over_weight")
    factor = 0.01 / float(update) if update else 0.1
    return (
        toward_usual_rate(evidence, factor=min(factor, 0.1)),
        *clip_gradients(evidence),
        f"lengthen training.warmup_epochs{now(evidence, 'warmup_epochs')}",
    )


def _raise(hit: Hit, evidence: Evidence) -> tuple[str, ...]:
    return (
        toward_usual_rate(evidence, factor=10),
        "let the tuner look for it: tuning.search_space.learning_rate, log: true",
        f"train for more of training.epochs{now(evidence, 'epochs')}, if a low rate is wanted",
    )


RULES = (
    Rule(
        name="learning_rate_too_high",
        title="The learning rate is too high",
        severity="error",
        meaning=(
            "Each step goes so far that what was learned, or came with the trained weights, "
            "is lost: the loss rises above that of guessing."
        ),
        advice=_lower,
        evaluate=learning_rate_too_high,
    ),
    Rule(
        name="learning_rate_too_low",
        title="The learning rate is too low",
        severity="warning",
        meaning="The weights hardly move: the training would need many times as many steps.",
        advice=_raise,
        evaluate=learning_rate_too_low,
    ),
)
