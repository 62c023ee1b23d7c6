"""Rules over labels: imbalance, noise, and splits that do not fit each other."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from darkroom.config.debugging import Severity
from darkroom.debugging.rules.generalisation import check_settled, is_settled
from darkroom.debugging.rules.rule import NotApplicableError, Rule, always
from darkroom.debugging.rules.series import chance_loss
from darkroom.telemetry.epochs import EpochMetrics
from darkroom.telemetry.evidence import Evidence, Floats, ImageMargins, Integers, Mode
from darkroom.telemetry.findings import Hit

# --- labels ---


def class_imbalance(
    evidence: Evidence,
    *,
    threshold_imbalance: float = 10.0,
    threshold_misprediction: float = 0.7,
    samples: int = 500,
    minimum_images: int = 20,
) -> list[Hit]:
    """Some class has many times as many images as another, or is mostly mispredicted.

    SageMaker Debugger's ClassImbalance and its thresholds. Imbalance is counted in the
    training labels, misprediction in the last evaluation: early in a training every class is
    mispredicted. It is a note, since a hard class is no fault.

    Args:
        threshold_imbalance: largest to smallest class; classes without images apart.
        threshold_misprediction: share of a class's images.
        samples: labels before which nothing is said.
        minimum_images: of a class, for its misprediction to count; ours.
    """
    counts = _training_counts(evidence)
    hits = []
    if counts.sum() >= samples:
        hits += _uneven(evidence, counts=counts, threshold=threshold_imbalance)
    elif counts.sum() < 1:
        raise NotApplicableError("no training labels are known")
    confusion = last_confusion(evidence, mode="eval") if _is_settled(evidence) else None
    if confusion is not None:
        hits += _mispredicted(
            evidence,
            confusion=confusion,
            threshold=threshold_misprediction,
            minimum_images=minimum_images,
        )
    return hits


def confusion(
    evidence: Evidence,
    *,
    category_no: int | None = None,
    min_diag: float = 0.5,
    max_off_diag: float = 0.3,
    minimum_images: int = 20,
) -> list[Hit]:
    """Predictions of a class are too often wrong, or too often of one other class.

    SageMaker Debugger's Confusion, by the last evaluation; its own thresholds are 0.9 and
    0.1, which few classifiers of photographs meet. As in its tests columns are normalised:
    conf[i][i] / Σ_j conf[j][i], over actual classes j.

    Args:
        category_no: number of classes; null: as many as there are.
        min_diag: share of a class's predictions that have to be right.
        max_off_diag: share of them that may be of one other class.
        minimum_images: predicted as a class, for it to be judged; ours. 0 in AWS' rule.
    """
    check_settled(evidence)
    counts = last_confusion(evidence, mode="eval", classes=category_no)
    if counts is None:
        counts = last_confusion(evidence, mode="train", classes=category_no)
    if counts is None:
        raise NotApplicableError("no predictions were recorded")
    hits = []
    for actual, predicted, share in confused_pairs(
        counts, min_diag=min_diag, max_off_diag=max_off_diag, minimum_images=minimum_images
    ):
        figures: dict[str, float | str] = {"predicted": _name(evidence, predicted)}
        if actual == predicted:
            others = np.where(np.arange(len(counts)) == predicted, -1, counts[:, predicted])
            figures |= {
                "share_right": share,
                "threshold": min_diag,
                "most_others_are": _name(evidence, int(others.argmax())),
            }
        else:
            figures |= {
                "actually": _name(evidence, actual),
                "share_of_the_predicted": share,
                "threshold": max_off_diag,
            }
        hits.append(Hit(f"predicted as {_name(evidence, predicted)}", None, figures))
    return hits


def confused_pairs(
    counts: Integers, *, min_diag: float, max_off_diag: float, minimum_images: int = 0
) -> list[tuple[int, int, float]]:
    """(actual, predicted, share) where a share of a predicted class's images is out of bounds.

    Args:
        counts: (C, C), rows are actual classes, columns predicted ones.
    """
    totals = counts.sum(axis=0)
    shares = counts / totals.clip(1)
    wrong: list[tuple[int, int, float]] = []
    for predicted in np.flatnonzero(totals > minimum_images).tolist():
        for actual, share in enumerate(shares[:, predicted].tolist()):
            if share < min_diag if actual == predicted else share > max_off_diag:
                wrong.append((actual, predicted, share))
    return sorted(wrong, key=lambda pair: abs((pair[0] == pair[1]) - pair[2]), reverse=True)


def last_confusion(
    evidence: Evidence, *, mode: Mode, classes: int | None = None
) -> Integers | None:
    """(C, C) counts of the last recorded predictions of a mode; None: there are none.

    Of training they are all that were recorded, as single batches are too small.
    """
    pairs = _predictions(evidence, mode=mode)
    if not pairs:
        return None
    labels, predicted = (
        np.concatenate([pair[i] for pair in (pairs if mode == "train" else pairs[-1:])])
        for i in (0, 1)
    )
    seen = int(max(labels.max(initial=0), predicted.max(initial=0))) + 1
    size = max(classes or len(evidence.facts.classes), seen)
    counts: Integers = np.zeros((size, size), dtype=np.int64)
    np.add.at(counts, (labels, predicted), 1)
    return counts


def _is_settled(evidence: Evidence) -> bool:
    try:
        check_settled(evidence)
    except NotApplicableError:
        return False
    return True


def _training_counts(evidence: Evidence) -> Floats:
    """(C,) training images; as recorded in labels where the facts lack them."""
    known = np.asarray(evidence.facts.class_counts.get("train", ()), dtype=np.float64)
    if len(known):
        return known
    labels = [pair[0] for pair in _predictions(evidence, mode="train")]
    if not labels:
        return known
    return np.bincount(np.concatenate(labels)).astype(np.float64)


def _predictions(evidence: Evidence, *, mode: Mode) -> list[tuple[Integers, Integers]]:
    """Labels and predicted classes, by recorded step."""
    source = evidence.tensors
    pairs = []
    for labels_name, logits_name in zip(
        source.names("labels"), source.names("logits"), strict=False
    ):
        steps = source.statistics(logits_name, kind="logits", mode=mode).steps
        for step in steps.tolist():
            logits = source.value(logits_name, kind="logits", step=step, mode=mode)
            labels = source.value(labels_name, kind="labels", step=step, mode=mode)
            if logits is not None and labels is not None and len(labels) == len(logits):
                predicted = logits.argmax(axis=1) if logits.ndim > 1 else logits
                pairs.append((labels.astype(np.int64), predicted.astype(np.int64)))
    return pairs


def _uneven(evidence: Evidence, *, counts: Floats, threshold: float) -> list[Hit]:
    present = np.flatnonzero(counts)
    smallest = int(present[counts[present].argmin()])
    largest = int(counts.argmax())
    ratio = float(counts[largest] / counts[smallest])
    if ratio <= threshold:
        return []
    figures: dict[str, float | str] = {
        "largest_class": _name(evidence, largest),
        "largest_to_smallest": ratio,
        "threshold": threshold,
    }
    return [Hit(_name(evidence, smallest), None, figures)]


def _mispredicted(
    evidence: Evidence, *, confusion: Integers, threshold: float, minimum_images: int
) -> list[Hit]:
    images = confusion.sum(axis=1)
    shares = 1 - np.diagonal(confusion) / images.clip(1)
    found = np.flatnonzero((images >= max(minimum_images, 1)) & (shares > threshold))
    return [
        Hit(
            _name(evidence, number),
            None,
            {"mispredicted_share": float(shares[number]), "threshold": threshold},
        )
        for number in found[np.argsort(-shares[found], kind="stable")].tolist()
    ]


def _name(evidence: Evidence, number: int) -> str:
    classes = evidence.facts.classes
    return classes[number] if number < len(classes) else f"class {number}"


def _imbalance_advice(hit: Hit, evidence: Evidence) -> tuple[str, ...]:
    given = evidence.facts.hyperparameters
    advice = [f"add images of {hit.where}"]
    if given.get("imbalance", "none") == "none":
        advice.insert(
            0,
            "weigh the classes: training.imbalance: class_weights (now none), or draw them "
            "equally often: stratified_sampling",
        )
    if given.get("objective") == "accuracy":
        advice.append("set training.objective: f1_macro or balanced_accuracy (now accuracy)")
    return tuple(advice)


def _confusion_advice(hit: Hit, evidence: Evidence) -> tuple[str, ...]:
    actual, predicted = hit.figures.get("actually"), hit.figures["predicted"]
    look = (
        f"look at what is wrongly taken for {predicted}, most often "
        f"{hit.figures['most_others_are']}: the evaluation report shows it"
        if actual is None
        else f"look at images of {actual} and {predicted}: are they labelled alike, and can a "
        "person tell them apart?"
    )
    return (
        look,
        "see more of each image: model.image_size",
    )


LABEL_RULES = (
    Rule(
        name="class_imbalance",
        title="Classes are uneven, or one is mostly mispredicted",
        severity="note",
        meaning="The network does well to prefer large classes, at the expense of small ones.",
        advice=_imbalance_advice,
        evaluate=class_imbalance,
        live=False,
    ),
    Rule(
        name="confusion",
        title="Classes are taken for one another",
        severity="note",
        meaning="Of what is predicted as this class, too much is of others.",
        advice=_confusion_advice,
        evaluate=confusion,
        live=False,
    ),
)


# --- label noise ---
# Labels that do not fit their images: some of them, or all.

_MAX_NAMED = 20
_MIN_LEARNED = 0.4
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
    beyond = learned >= _MIN_LEARNED and suspects > _validation_error(evidence) + validation_excess
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
    worst = chosen[np.argsort(margins.margin[chosen], kind="stable")][:_MAX_NAMED]
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


LABEL_NOISE_RULES = (
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


# --- splits ---
# The images of the splits: classes without any, and images that are in two splits.


def class_missing(evidence: Evidence) -> list[Hit]:
    """A class has no training images, which is an error, or no validation images."""
    counts = evidence.facts.class_counts
    if not counts.get("train"):
        raise NotApplicableError("images were not counted by class")
    hits = []
    for split in ("train", "validation"):
        present = counts.get(split, ())
        for name, images in zip(evidence.facts.classes, present, strict=False):
            if not images:
                figures: dict[str, float | str] = {"split": split, "images": 0.0}
                severity: Severity | None = None if split == "train" else "warning"
                hits.append(Hit(f"{name} in {split}", None, figures, severity=severity))
    return hits


def leakage(evidence: Evidence, *, minimum_share: float = 0.02) -> list[Hit]:
    """Validation images look like training images.

    Args:
        minimum_share: of the validation images, from which it is a warning and no note: a
            few look-alikes, such as two pictures of a series, change no metric. Ours.
    """
    shared = evidence.facts.shared_count
    if not shared:
        return []
    images = max(sum(evidence.facts.class_counts.get("validation", ())), shared)
    figures: dict[str, float | str] = {
        "images": float(shared),
        "share": shared / images,
        "threshold": minimum_share,
    }
    for number, (train, validation) in enumerate(evidence.facts.shared_images[:5], start=1):
        figures[f"pair_{number}"] = f"{validation} in validation, {train} in training"
    severity: Severity | None = None if shared / images >= minimum_share else "note"
    return [Hit("validation", None, figures, severity=severity)]


SPLIT_RULES = (
    Rule(
        name="class_missing",
        title="A class has no images",
        severity="error",
        meaning=(
            "A class that is not trained on is never predicted rightly; one that is not "
            "validated does not count when the best epoch is chosen."
        ),
        advice=lambda hit, evidence: (
            f"add images of {hit.where}, or leave the class out of data.source",
            "check how the folders of the classes are spelt in each split",
        ),
        evaluate=class_missing,
    ),
    Rule(
        name="leakage",
        title="Validation images are among the training images",
        severity="warning",
        meaning="Validation metrics are better than those of images that the model never saw.",
        advice=always(
            "leave them out: data.on_leakage: leave_out, data.on_near_duplicates: leave_out",
            "raise data.near_duplicate_distance, if copies were changed more",
        ),
        evaluate=leakage,
    ),
)
