"""Rules over what validation says: overfitting, and batch norm that has not converged."""

import math
from typing import cast

import numpy as np

from darkroom.config.sections import Metric, is_better
from darkroom.debugging.rules.rule import Advice, NotApplicableError, Rule, always, now
from darkroom.debugging.rules.series import chance_loss, line_plot
from darkroom.telemetry.epochs import EpochMetrics
from darkroom.telemetry.evidence import Evidence, Floats
from darkroom.telemetry.findings import Hit, Plot

# --- batch-norm convergence ---
# Whether batch-norm's running statistics have come so far that a validation says anything.

_SLOW_STATISTICS = {
    "mobilenet_v3": 0.01,
    **dict.fromkeys(("efficientnet_b5", "efficientnet_b6", "efficientnet_b7"), 0.01),
    "mnasnet": 0.0003,
}
"""Momentum of batch-norm's running statistics where it is not torch's 0.1, by the start of
the architecture's name; torchvision's source."""
_MAX_SETTLING_STEPS = 1000


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
    return min(round(times / next(starts, 0.1)), _MAX_SETTLING_STEPS)


def _advice(hit: Hit, evidence: Evidence) -> tuple[str, ...]:
    return (
        f"train longer: training.epochs{now(evidence, 'epochs')}; believe no validation before "
        f"about {hit.figures['steps_needed']:.0f} steps",
        "start from trained weights (model.weights: imagenet): their statistics are there",
    )


BN_CONVERGENCE_RULES = (
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


# --- generalisation ---


def overfit(
    evidence: Evidence,
    *,
    start_step: int = 0,
    patience: int = 2,
    ratio_threshold: float = 1.0,
    gap: float = 0.5,
    gap_of_chance: float = 0.25,
) -> list[Hit]:
    """(validation loss − training loss) / training loss > `ratio_threshold`, at the end.

    SageMaker Debugger's Overfit, by epochs. Its own ratio, 0.1, is met by every training
    that ends well; so the losses have to be apart by `gap`, too.

    Args:
        start_step: epochs that end before it are left out.
        patience: epochs in a row, the last ones.
        ratio_threshold: of the difference to the training loss.
        gap: nats by which the losses have to differ, at least; ours: 0.5 is what 85 % against
            100 % of accuracy come to.
        gap_of_chance: the same as a share of the loss of guessing, ln C; ours.
    """
    least = max(gap, gap_of_chance * chance_loss(evidence.facts))
    train, validation = _losses(evidence, after=patience - 1, start_step=start_step)
    apart = validation - train
    over = (apart > ratio_threshold * train) & (apart > least)
    if not over[-patience:].all():
        return []
    first = len(over) - int(np.argmin(over[::-1])) if not over.all() else 0
    figures: dict[str, float | str] = {
        "training_loss": float(train[-1]),
        "validation_loss": float(validation[-1]),
        "ratio": float(apart[-1] / max(train[-1], 1e-12)),
        "ratio_threshold": ratio_threshold,
        "epoch": _number(evidence, first, of=len(over)),
    }
    return [Hit("", _last_step(evidence), figures, plot=_plot(evidence))]


def overtraining(
    evidence: Evidence,
    *,
    patience_train: int = 5,
    patience_validation: int = 10,
    delta: float = 0.01,
) -> list[Hit]:
    """The training or the validation loss has had no new optimum for long.

    SageMaker Debugger's Overtraining, with its defaults, by epochs. Its documentation says
    neither whether both have to stall; one is enough here.

    Args:
        patience_train: epochs without a better training loss.
        patience_validation: epochs without a better validation loss.
        delta: by which a loss has to be better.
    """
    train, validation = _losses(evidence, after=min(patience_train, patience_validation))
    hits = []
    for which, losses, patience in (
        ("validation", validation, patience_validation),
        ("training", train, patience_train),
    ):
        stalled = epochs_without_optimum(losses, delta=delta)
        if stalled >= patience:
            figures: dict[str, float | str] = {
                "loss": which,
                "epochs_without_better": float(stalled),
                "patience": float(patience),
            }
            hits.append(Hit(f"{which} loss", None, figures, plot=_plot(evidence)))
    return hits


def epochs_without_optimum(losses: Floats, *, delta: float) -> int:
    """Entries since the last that was lower by more than `delta` than the best before."""
    best, since = np.inf, 0
    for loss in losses.tolist():
        since = 0 if best - loss > delta else since + 1
        best = loss if since == 0 else best
    return since


def train_validation_divergence(
    evidence: Evidence,
    *,
    rise: float = 0.25,
    rise_of_chance: float = 0.1,
    patience: int = 2,
) -> list[Hit]:
    """The validation loss has risen from its best, while the training loss went on falling.

    Args:
        rise: share by which it has to be above its best; Prechelt, Early stopping, but when?,
            1998: generalisation loss, of which 5 % stop early there.
        rise_of_chance: the same as a share of the loss of guessing, ln C: small losses jump.
        patience: epochs in a row, the last ones.
    """
    train, validation = _losses(evidence, after=patience)
    best = int(validation.argmin())
    limit = validation[best] * (1 + rise)
    limit = max(limit, validation[best] + rise_of_chance * chance_loss(evidence.facts))
    later = validation[best + 1 :][-patience:]
    if len(later) < patience or not ((later > limit).all() and train[-1] < train[best]):
        return []
    figures: dict[str, float | str] = {
        "best_validation_loss": float(validation[best]),
        "validation_loss": float(validation[-1]),
        "threshold": float(limit),
        "best_epoch": float(evidence.epochs[best].epoch),
    }
    return [Hit("", _last_step(evidence), figures, plot=_plot(evidence))]


def underfitting(evidence: Evidence, *, share_of_chance: float = 0.8) -> list[Hit]:
    """At the end, the training loss is close to that of guessing.

    Args:
        share_of_chance: of ln C, above which the last epoch's training loss is close.
    """
    if len(evidence.epochs) < 2:
        raise NotApplicableError(f"{len(evidence.epochs)} epochs are too few to tell")
    train = evidence.epochs[-1].train_loss
    limit = share_of_chance * chance_loss(evidence.facts)
    if train <= limit:
        return []
    figures: dict[str, float | str] = {
        "training_loss": train,
        "loss_of_guessing": chance_loss(evidence.facts),
        "threshold": limit,
    }
    return [Hit("", _last_step(evidence), figures, plot=_plot(evidence))]


def chance_level(evidence: Evidence, *, deviations: float = 2.0) -> list[Hit]:
    """At the epoch that was kept, validation is no better than always naming one class.

    Neither is its accuracy above the share of the most frequent class, nor its balanced
    accuracy above 1 / C, by more than chance makes of a test set of that size.

    Args:
        deviations: standard deviations by which chance may be exceeded; ours: of 44 guessing
            models one is above 2.
    """
    counts = np.asarray(evidence.facts.class_counts.get("validation", ()), dtype=np.float64)
    kept = kept_epoch(evidence)
    if kept is None or counts.sum() < 1 or "accuracy" not in kept.validation:
        raise NotApplicableError("no epoch was validated")
    present = counts[counts > 0]
    if len(present) < 2:
        raise NotApplicableError("the validation images are of one class")
    if not is_settled(evidence) and kept.train_accuracy > 2 * present.max() / present.sum():
        raise NotApplicableError("batch-norm has not settled, and training is above chance")
    share, even = float(present.max() / present.sum()), 1 / len(present)
    # The mean of the classes' recalls varies by the smallest of them.
    images = len(present) ** 2 / float((1 / present).sum())
    limit = share + deviations * math.sqrt(share * (1 - share) / present.sum())
    balanced_limit = even + deviations * math.sqrt(even * (1 - even) / images)
    accuracy = kept.validation["accuracy"]
    balanced = kept.validation.get("balanced_accuracy", accuracy)
    if accuracy > limit or balanced > balanced_limit:
        return []
    figures: dict[str, float | str] = {
        "validation_accuracy": accuracy,
        "share_of_the_largest_class": share,
        "threshold": limit,
        "validation_balanced_accuracy": balanced,
        "balanced_accuracy_of_guessing": even,
        "epoch": float(kept.epoch),
    }
    return [Hit("", None, figures, plot=_plot(evidence))]


def kept_epoch(evidence: Evidence) -> EpochMetrics | None:
    """The epoch with the best objective, or the last where it was not measured; None: none."""
    objective = evidence.facts.hyperparameters.get("objective", "f1_macro")
    found: EpochMetrics | None = None
    for epoch in evidence.epochs:
        value = epoch.validation.get(str(objective))
        best = None if found is None else found.validation.get(str(objective))
        if value is None:
            continue
        if best is None or is_better(value, best, metric=cast("Metric", objective)):
            found = epoch
    return found or (evidence.epochs[-1] if evidence.epochs else None)


def _losses(evidence: Evidence, *, after: int, start_step: int = 0) -> tuple[Floats, Floats]:
    """Training and validation loss by epoch.

    Raises:
        NotApplicableError: not more than `after` epochs, or not settled.
    """
    check_settled(evidence)
    per_epoch = max(evidence.facts.steps_per_epoch, 1)
    epochs = [one for one in evidence.epochs if one.epoch * per_epoch >= start_step]
    if len(epochs) <= after:
        raise NotApplicableError(f"{len(epochs)} epochs are too few to tell")
    return (
        np.array([epoch.train_loss for epoch in epochs]),
        np.array([epoch.validation.get("log_loss", np.nan) for epoch in epochs]),
    )


def _number(evidence: Evidence, at: int, *, of: int) -> float:
    """The number of the epoch at a position of the last `of`."""
    return float(evidence.epochs[len(evidence.epochs) - of + at].epoch)


def _last_step(evidence: Evidence) -> int | None:
    return int(evidence.steps.step[-1]) if len(evidence.steps) else None


def _plot(evidence: Evidence) -> Plot:
    epochs = evidence.epochs
    return line_plot(
        np.array([epoch.epoch for epoch in epochs]),
        lines={
            "training": np.array([epoch.train_loss for epoch in epochs]),
            "validation": np.array([e.validation.get("log_loss", np.nan) for e in epochs]),
        },
        x_label="epoch",
        y_label="loss, nats",
    )


def _overfit_advice(hit: Hit, evidence: Evidence) -> tuple[str, ...]:
    counts = evidence.facts.class_counts.get("train", ())
    images = f" (now {sum(counts)} to train on)" if counts else ""
    return (
        f"add images{images}",
        f"train less of it: model.fine_tune: head{now(evidence, 'fine_tune')}",
        f"augment: training.augmentation: crop_flip{now(evidence, 'augmentation')}",
        f"raise training.weight_decay{now(evidence, 'weight_decay')} or "
        f"training.label_smoothing{now(evidence, 'label_smoothing')}",
    )


def _longer_advice(hit: Hit, evidence: Evidence) -> tuple[str, ...]:
    return (
        f"train longer: training.epochs{now(evidence, 'epochs')}",
        "start from trained weights (model.weights: imagenet), and train all layers "
        "(model.fine_tune: all)",
        f"try another training.learning_rate{now(evidence, 'learning_rate')}",
    )


_STOP_EARLIER: Advice = always(
    "stop in time: training.early_stopping_epochs: 3",
    "train for fewer epochs (training.epochs); the best one is kept anyway",
)

GENERALISATION_RULES = (
    Rule(
        name="overfit",
        title="The network learns its images by heart",
        severity="warning",
        meaning=(
            "It is far surer of the images it trained on than of others: more training helps "
            "no more, more or more varied images would."
        ),
        advice=_overfit_advice,
        evaluate=overfit,
    ),
    Rule(
        name="overtraining",
        title="The losses have stopped falling",
        severity="note",
        meaning="The last epochs changed nothing for the better.",
        advice=_STOP_EARLIER,
        evaluate=overtraining,
    ),
    Rule(
        name="train_validation_divergence",
        title="Validation gets worse while training gets better",
        severity="warning",
        meaning="What is still learned is of no use for other images; the best epoch is past.",
        advice=lambda hit, evidence: (
            *_STOP_EARLIER(hit, evidence),
            *_overfit_advice(hit, evidence),
        ),
        evaluate=train_validation_divergence,
    ),
    Rule(
        name="chance_level",
        title="The network does no better than guessing",
        severity="warning",
        meaning="On images that it was not trained on, always naming one class is as good.",
        advice=lambda hit, evidence: (
            "see whether labels and images belong together",
            *_longer_advice(hit, evidence),
        ),
        evaluate=chance_level,
        live=False,
    ),
    Rule(
        name="underfitting",
        title="Little has been learned",
        severity="note",
        meaning="Even on its own training images the network is hardly better than guessing.",
        advice=_longer_advice,
        evaluate=underfitting,
        live=False,
    ),
)
