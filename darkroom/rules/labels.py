"""Classes: uneven in number, mispredicted, taken for one another."""

import numpy as np

from darkroom.rules.evidence import Evidence, Floats, Integers, Mode
from darkroom.rules.findings import Hit
from darkroom.rules.rule import NotApplicableError, Rule
from darkroom.rules.settling import check_settled


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


RULES = (
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
