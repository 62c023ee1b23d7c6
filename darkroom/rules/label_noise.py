"""Labels that do not fit their images: some of them, or all."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from darkroom.rules.advising import always
from darkroom.rules.evidence import Evidence, Floats, ImageMargins, Integers
from darkroom.rules.findings import Hit
from darkroom.rules.rule import NotApplicableError, Rule
from darkroom.rules.series import chance_loss
from darkroom.rules.settling import is_settled
from darkroom.training.history import EpochMetrics

_MOST_NAMED = 20
_LEAST_LEARNED = 0.4
"""Share of the images with a positive margin, below which margins tell of the network."""


@dataclass(frozen=True)
class _Margins:
    """The margins of the images that were seen, in units of the usual right one's."""

    scaled: Floats
    positions: Integers
    """In ImageMargins."""

    def share(self, low: float, high: float = math.inf) -> float:
        """Of the images whose scaled margin lies in [low, high)."""
        return float(((self.scaled >= low) & (self.scaled < high)).mean())


def label_noise(
    evidence: Evidence,
    *,
    minimum_share: float = 0.05,
    learned_share: float = 0.7,
    band: float = 0.5,
    valley: float = 0.6,
    validation_excess: float = 0.08,
    minimum_images: int = 100,
    minimum_steps: int = 30,
) -> list[Hit]:
    """Many training images look like another class than their label's, or all labels do.

    Area under the margin (Pleiss et al., NeurIPS 2020): margins, averaged over the epochs,
    are divided by the median of the positive ones; below −`band` lie the suspects. Where
    images are merely hard, margins thin out to the left: at an accuracy of 90 % normally
    distributed ones have 0.09 as many suspects as margins within ±`band`, at 75 % 0.39.
    Wrong labels pile up at the mirror image of the right ones: 0.76 with 20 % of them.

    Labels that are shuffled are another matter: there is nothing to learn from them, so that
    validation stays at that of guessing, whatever becomes of the training, and so do the
    images of the first epoch, which are seen for the first time.

    Args:
        minimum_share: of the images that have to be suspects.
        learned_share: of the images that need a positive margin, before which hard and
            mislabelled ones cannot be told apart.
        band: of the median positive margin.
        valley: suspects over images within ±`band`, above which labels are wrong.
        validation_excess: or else: share of suspects above the share of validation images
            that are mispredicted. Hard images alone reach up to 0.07: margins are averaged
            over the epochs, the first of which know less (measured: 144 short trainings
            without wrong labels; with 20 % of them 0.095 to 0.19).
        minimum_images: with margins, before which nothing is said.
        minimum_steps: before which labels are not called shuffled.
    """
    shuffled = _shuffled(evidence, minimum_steps=minimum_steps)
    if shuffled:
        return [shuffled]
    margins = _scaled(evidence, minimum_images=minimum_images)
    if margins is None:
        return []
    suspects = float((margins.scaled < -band).mean())
    ratio = suspects / max(margins.share(-band, band), 1e-12)
    learned = margins.share(0.0)
    piled_up = learned >= learned_share and ratio > valley
    beyond = (
        learned >= _LEAST_LEARNED and suspects > _validation_error(evidence) + validation_excess
    )
    if suspects < minimum_share or not (piled_up or beyond):
        return []
    assert evidence.margins is not None  # noqa: S101 - else there were none to scale
    chosen = margins.positions[margins.scaled < -band]
    figures: dict[str, float | str] = {
        "suspects": float(len(chosen)),
        "share": suspects,
        "threshold": minimum_share,
        "suspects_over_undecided": ratio,
        **_named(evidence, margins=evidence.margins, chosen=chosen),
    }
    return [Hit("", None, figures)]


def suspects(
    margins: ImageMargins, *, band: float = 0.5, positions: Integers | None = None
) -> Integers:
    """Positions of the images whose margin is below −`band` of the usual, the worst first."""
    seen = np.flatnonzero(np.isfinite(margins.margin)) if positions is None else positions
    usual = margins.margin[seen]
    scale = float(np.median(usual[usual > 0])) if (usual > 0).any() else 0.0
    chosen = seen[usual < -band * scale]
    return chosen[np.argsort(margins.margin[chosen], kind="stable")]


def _scaled(evidence: Evidence, *, minimum_images: int) -> _Margins | None:
    """None: no image has a positive margin."""
    if evidence.margins is None:
        raise NotApplicableError("how each image was seen was not recorded")
    positions = np.flatnonzero(np.isfinite(evidence.margins.margin))
    if len(positions) < minimum_images:
        raise NotApplicableError(f"fewer than {minimum_images} images were seen")
    values = evidence.margins.margin[positions]
    if not (values > 0).any():
        return None
    return _Margins(values / float(np.median(values[values > 0])), positions)


def _validation_error(evidence: Evidence) -> float:
    """The lowest share of mispredicted validation images; 1 where there is none.

    Before batch-norm has settled it is too high, which is on the safe side here.
    """
    errors = [1 - epoch.validation.get("accuracy", 0.0) for epoch in evidence.epochs]
    return min(errors, default=1.0)


def _shuffled(evidence: Evidence, *, minimum_steps: int) -> Hit | None:
    """Images at the level of guessing, although the training had time enough.

    Those of the validation; before batch-norm has settled it says nothing, and the training
    images take its place.
    """
    facts, epochs = evidence.facts, evidence.epochs
    settled = is_settled(evidence)
    trained = facts.hyperparameters.get("weights", "none") != "none"
    # A network with trained weights sees classes that are there within an epoch or two.
    enough = minimum_steps * (1 if trained else 10) * (1 if settled else 3)
    classes = max(len(facts.classes), 2)
    limit = _best_of_guessing(evidence)
    reached, lowest = _reached(epochs, on_training_images=not settled)
    if _knows_unseen_images(evidence):
        return None
    if len(epochs) < 2 or reached > limit or lowest < 0.97 * chance_loss(facts):
        return None
    by_heart = epochs[-1].train_accuracy > reached + 0.15
    if not by_heart and len(evidence.steps) < enough:
        return None
    figures: dict[str, float | str] = {
        f"{'validation_balanced' if settled else 'training'}_accuracy": reached,
        "accuracy_of_guessing": 1 / classes,
        "threshold": limit,
        f"lowest_{'validation' if settled else 'training'}_loss": lowest,
    }
    if settled:
        figures["training_accuracy"] = epochs[-1].train_accuracy
    return Hit("all labels", None, figures)


def _reached(epochs: Sequence[EpochMetrics], *, on_training_images: bool) -> tuple[float, float]:
    """Mean accuracy over the later half of the epochs, and the lowest loss of all."""
    later = epochs[len(epochs) // 2 :]
    if on_training_images:
        accuracies = [one.train_accuracy for one in later]
        losses = [one.train_loss for one in epochs]
    else:
        accuracies = [one.validation.get("balanced_accuracy", 1.0) for one in later]
        losses = [one.validation.get("log_loss", 0.0) for one in epochs]
    return (float(np.mean(accuracies)) if accuracies else 1.0), min(losses, default=0.0)


def _best_of_guessing(evidence: Evidence) -> float:
    """Balanced accuracy that guessing exceeds in one of 160 epochs: 2.5 standard errors."""
    classes = max(len(evidence.facts.classes), 2)
    images = sum(evidence.facts.class_counts.get("validation", ())) or 100
    return 1 / classes + 2.5 * math.sqrt((1 - 1 / classes) / classes / images)


def _knows_unseen_images(evidence: Evidence) -> bool:
    """Whether the later half of the first epoch's images, new to the network, beat guessing.

    By three standard errors, above the share of the largest class.
    """
    steps = evidence.steps
    first = np.flatnonzero(steps.epoch == 1)
    later = first[len(first) // 2 :]
    images = int(steps.images[later].sum())
    if not images:
        return False
    counts = np.asarray(evidence.facts.class_counts.get("train", ()), dtype=np.float64)
    guess = float(counts.max() / counts.sum()) if counts.sum() else 1 / max(len(counts), 2)
    margin = 3 * math.sqrt(guess * (1 - guess) / images)
    return bool(steps.correct[later].sum() / images > guess + margin)


def _named(
    evidence: Evidence, *, margins: ImageMargins, chosen: Integers
) -> dict[str, float | str]:
    worst = chosen[np.argsort(margins.margin[chosen], kind="stable")][:_MOST_NAMED]
    return {
        f"suspect_{number}": (
            f"{margins.paths[at]}: labelled {_class(evidence, int(margins.label[at]))}, "
            f"looks like {_class(evidence, int(margins.predicted[at]))}"
        )
        for number, at in enumerate(worst.tolist(), start=1)
    }


def _class(evidence: Evidence, number: int) -> str:
    classes = evidence.facts.classes
    return classes[number] if 0 <= number < len(classes) else f"class {number}"


RULES = (
    Rule(
        name="label_noise",
        title="Labels do not fit their images",
        severity="warning",
        meaning=(
            "Images are labelled as something else than they look like. They teach the network "
            "wrong things, and it ends up learning them by heart."
        ),
        advice=always(
            "look at the images that are named, and correct or remove them",
            "if labels come from a table, check that its rows and the images go together",
            "train for fewer epochs (training.epochs), before wrong labels are learned by heart",
            "raise training.label_smoothing to 0.1",
        ),
        evaluate=label_noise,
        live=False,
    ),
)
