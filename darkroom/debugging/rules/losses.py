"""Rules over losses and the learning rate."""

import numpy as np

from darkroom.debugging.rules.rule import (
    NotApplicableError,
    Rule,
    always,
    change_rate,
    clip_gradients,
    now,
    toward_usual_rate,
)
from darkroom.debugging.rules.series import (
    chance_loss,
    finite_losses,
    first_loss,
    last_loss,
    line_plot,
    loss_plot,
    peak_rate,
    smoothed_losses,
)
from darkroom.debugging.rules.values import exploding_tensor
from darkroom.debugging.rules.weights import updates_at_peak
from darkroom.telemetry.evidence import Evidence, Floats, Integers
from darkroom.telemetry.findings import Hit

# --- losses ---

_LOSSES_OF_ONE_EPOCH = 100
"""From which on a single epoch, with its warm-up, has to have lowered the loss."""


def non_finite_loss(evidence: Evidence) -> list[Hit]:
    """The loss of a training step is NaN or infinite."""
    bad = np.flatnonzero(~np.isfinite(evidence.steps.loss))
    if not len(evidence.steps):
        raise NotApplicableError("no losses were recorded")
    if not len(bad):
        return []
    at = int(bad[0])
    step = int(evidence.steps.step[at])
    figures: dict[str, float | str] = {"loss": str(float(evidence.steps.loss[at]))}
    earlier = evidence.steps.loss[:at]
    if len(earlier):
        figures["loss_before"] = float(earlier[-1])
    where = _where_it_began(evidence, step=step)
    if where:
        figures["first_non_finite"] = where
    return [Hit(where, step, figures, plot=loss_plot(evidence))]


def loss_not_decreasing(
    evidence: Evidence,
    *,
    num_steps: int = 0,
    diff_percent: float = 0.1,
    increase_threshold_percent: float = 0.0,
    smoothing: int = 0,
    while_loss_above: float = 0.5,
) -> list[Hit]:
    """The training loss did not fall by `diff_percent` % in `num_steps` steps.

    SageMaker Debugger's LossNotDecreasing. Its own defaults (num_steps 10,
    increase_threshold_percent 5, smoothing 1) suit no losses of single batches: half of
    these are higher than the one ten steps before.

    Args:
        num_steps: between the losses that are compared; 0: first and last tenth of all.
        diff_percent: percent by which the loss has to fall.
        increase_threshold_percent: percent of an increase that counts by itself; 0: none.
        smoothing: steps over which losses are averaged; 0: as many as have 32 images.
        while_loss_above: share of the loss of guessing, ln C; below it a loss need not fall.
    """
    enough = while_loss_above * chance_loss(evidence.facts)
    if not num_steps:
        return _did_not_fall(evidence, diff_percent=diff_percent, enough=enough)
    steps, losses = _averaged(evidence, smoothing=smoothing)
    fired = [
        step
        for step in not_decreasing(
            steps,
            losses=losses,
            num_steps=num_steps,
            diff_percent=diff_percent,
            increase_threshold_percent=increase_threshold_percent or None,
        )
        if losses[np.searchsorted(steps, step)] > enough
    ]
    return [Hit("", step, {"diff_percent": diff_percent, "num_steps": num_steps}) for step in fired]


def not_decreasing(
    steps: Integers,
    *,
    losses: Floats,
    num_steps: int,
    diff_percent: float = 0.1,
    increase_threshold_percent: float | None = 5.0,
) -> list[int]:
    """Steps at which a loss has not fallen, as SageMaker Debugger's documentation has it.

    A check every `num_steps` steps, or at the next one that was recorded, against the newest
    loss that is `num_steps` or more behind. It fires if the loss fell by less than
    `diff_percent` %; or, at any check, if it rose by more than `increase_threshold_percent` %.

    Args:
        steps: (n,) at which a loss was recorded, ascending.
        losses: (n,) of these steps, in nats.
        num_steps: between the two losses that are compared, at least.
        diff_percent: percent by which the loss has to fall; a negative one lets it rise so far.
        increase_threshold_percent: percent of an increase that counts by itself; this matters
            where `diff_percent` lets the loss rise further. None: none does.
    """
    fired = []
    checked = steps[0] if len(steps) else 0
    for at, step in enumerate(steps.tolist()):
        if step - checked < num_steps:
            continue
        checked = step
        before = float(losses[np.searchsorted(steps, step - num_steps, side="right") - 1])
        fell = 100 * (before - float(losses[at])) / abs(before) if before else 0.0
        rose = increase_threshold_percent is not None and -fell > increase_threshold_percent
        if fell < diff_percent or rose:
            fired.append(step)
    return fired


def loss_spike(
    evidence: Evidence,
    *,
    ratio: float = 3.0,
    chance_ratio: float = 1.5,
    window: int = 5,
    images: int = 64,
) -> list[Hit]:
    """The loss jumps to a multiple of what it just was, above that of guessing.

    Args:
        ratio: times the median of the losses before; ours. Of 144 healthy short trainings two
            had a single batch of 32 at 3.7 and 3.8 times, that the next batch did not share;
            averages over 64 images met the condition in none.
        chance_ratio: times the loss of guessing, or of the start where that is higher: a
            single hard batch of a network that is nearly done stays below.
        window: averaged losses behind that median.
        images: over which losses are averaged.
    """
    steps, losses = smoothed_losses(evidence.steps, images=images)
    if len(losses) <= window:
        raise NotApplicableError("too few losses were recorded")
    least = chance_ratio * max(chance_loss(evidence.facts), first_loss(evidence.steps))
    hits = []
    for at in range(window, len(losses)):
        usual = float(np.median(losses[at - window : at]))
        loss = float(losses[at])
        if loss > max(ratio * usual, least):
            figures: dict[str, float | str] = {
                "loss": loss,
                "usual_loss": usual,
                "ratio_threshold": ratio,
            }
            hits.append(Hit("", int(steps[at]), figures, plot=loss_plot(evidence)))
    return sorted(hits, key=lambda hit: -float(hit.figures["loss"]))


def plateau(
    evidence: Evidence,
    *,
    share: float = 0.4,
    fall_percent: float = 1.0,
    while_loss_above: float = 0.5,
    minimum_steps: int = 100,
    rate_share: float = 0.1,
) -> list[Hit]:
    """The training loss is flat, far from having been learned, while the rate is high.

    Args:
        share: of the steps at a high learning rate, the last ones, that are looked at.
        fall_percent: percent by which the second half of these has to be lower.
        while_loss_above: share of the loss of guessing, ln C.
        minimum_steps: before them nothing is said.
        rate_share: of the peak learning rate: lower ones are left out, since there a loss
            may be flat.
    """
    rates, peak = evidence.steps.learning_rate, peak_rate(evidence)
    usable = np.isfinite(evidence.steps.loss) & ~(rates < rate_share * peak)
    losses, steps = evidence.steps.loss[usable], evidence.steps.step[usable]
    if len(losses) < minimum_steps:
        raise NotApplicableError(f"fewer than {minimum_steps} steps at a high learning rate")
    half = int(len(losses) * share) // 2
    before, after = float(losses[-2 * half : -half].mean()), float(losses[-half:].mean())
    fell = 100 * (before - after) / before if before else 100.0
    if fell >= fall_percent or after < while_loss_above * chance_loss(evidence.facts):
        return []
    figures: dict[str, float | str] = {
        "loss_before": before,
        "loss": after,
        "fell_percent": fell,
        "threshold_percent": fall_percent,
    }
    return [Hit("", int(steps[-2 * half]), figures, plot=loss_plot(evidence, threshold=before))]


def _did_not_fall(evidence: Evidence, *, diff_percent: float, enough: float) -> list[Hit]:
    steps, losses = finite_losses(evidence.steps)
    if len(losses) < 30:
        raise NotApplicableError("fewer than 30 losses were recorded")
    if len(losses) < _LOSSES_OF_ONE_EPOCH and evidence.steps.epoch.max() < 2:
        raise NotApplicableError(
            f"{len(losses)} steps of a first epoch, most of them at the low learning rate of "
            "its warm-up, are too few to tell"
        )
    tenth = max(10, len(losses) // 10)
    start, end = float(losses[:tenth].mean()), last_loss(evidence.steps)
    fell = 100 * (start - end) / start if start else 0.0
    if fell >= diff_percent or end < enough:
        return []
    figures: dict[str, float | str] = {
        "loss_at_start": start,
        "loss": end,
        "fell_percent": fell,
        "threshold_percent": diff_percent,
    }
    return [Hit("", int(steps[-1]), figures, plot=loss_plot(evidence, threshold=start))]


def _averaged(evidence: Evidence, *, smoothing: int) -> tuple[Integers, Floats]:
    """Losses of single steps, or means over several."""
    if smoothing == 1:
        return finite_losses(evidence.steps)
    batch = float(np.median(evidence.steps.images)) if len(evidence.steps) else 1.0
    return smoothed_losses(evidence.steps, images=int(smoothing * batch) or 32)


def _where_it_began(evidence: Evidence, *, step: int) -> str:
    """The first tensor of the step that is not finite, as the step computes them."""
    try:
        hits = exploding_tensor(evidence)
    except NotApplicableError:
        return ""
    return next((hit.where for hit in hits if hit.step is not None and hit.step <= step), "")


def _not_finite_advice(hit: Hit, evidence: Evidence) -> tuple[str, ...]:
    return (
        "look for images or labels that are no numbers, if the loss was sound just before",
        change_rate(evidence, factor=0.1),
        *clip_gradients(evidence),
        "lengthen training.warmup_epochs, or set training.mixed_precision to 'off'",
    )


def _stuck_advice(hit: Hit, evidence: Evidence) -> tuple[str, ...]:
    return (
        "see whether labels and images belong together",
        f"try another training.learning_rate{now(evidence, 'learning_rate')}, three times "
        "higher and lower",
        "start from trained weights (model.weights: imagenet)",
    )


def _spike_advice(hit: Hit, evidence: Evidence) -> tuple[str, ...]:
    return (
        toward_usual_rate(evidence, factor=0.3),
        *clip_gradients(evidence),
        "look at the images of the named step",
    )


LOSS_RULES = (
    Rule(
        name="non_finite_loss",
        title="The loss is no longer a number",
        severity="error",
        meaning="Nothing can be learned from such a step; the training ends with it.",
        advice=_not_finite_advice,
        evaluate=non_finite_loss,
    ),
    Rule(
        name="loss_not_decreasing",
        title="The training loss does not fall",
        severity="warning",
        meaning="The network learns nothing, not even of the images it trains on.",
        advice=_stuck_advice,
        evaluate=loss_not_decreasing,
        live=False,
    ),
    Rule(
        name="loss_spike",
        title="The training loss jumps",
        severity="warning",
        meaning="A step undid what was learned; some of it takes many steps to recover.",
        advice=_spike_advice,
        evaluate=loss_spike,
    ),
    Rule(
        name="plateau",
        title="The training loss has been flat for long",
        severity="note",
        meaning="More epochs of the same would change little.",
        advice=always(
            "try another training.learning_rate, three times higher and lower",
            "take a larger model.architecture, or model.fine_tune: all",
        ),
        evaluate=plateau,
    ),
)


# --- learning rate ---
# A learning rate that is too high or too low, by what it does to weights and loss.


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


LEARNING_RATE_RULES = (
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
