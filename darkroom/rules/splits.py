"""The images of the splits: classes without any, and images that are in two splits."""

from darkroom.config.debugging import Severity
from darkroom.rules.advising import always
from darkroom.rules.evidence import Evidence
from darkroom.rules.findings import Hit
from darkroom.rules.rule import NotApplicableError, Rule


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


RULES = (
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
