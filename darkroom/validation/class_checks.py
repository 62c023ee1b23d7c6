"""Checks of what is left to train on: classes, splits and their sizes."""

from collections import Counter
from collections.abc import Iterator, Sequence

from darkroom.dataset import SPLITS, Dataset
from darkroom.validation.report import Finding

_NAMES_SHOWN = 20


def too_few_classes(dataset: Dataset) -> Iterator[Finding]:
    """Nothing to tell apart."""
    present = sorted({record.label for record in dataset.records})
    if len(present) < 2:
        yield Finding(
            kind="too_few_classes",
            action="stop",
            message=f"{len(present)} class with images: {named(present) or 'none'}",
            advice="A classifier needs at least two: one folder of images for each class.",
            classes=tuple(present),
        )


def empty_splits(dataset: Dataset) -> Iterator[Finding]:
    """A split without images."""
    present = {record.split for record in dataset.records}
    empty = [split for split in SPLITS if split not in present]
    if empty:
        yield Finding(
            kind="empty_splits",
            action="stop",
            message=f"no images for {' and '.join(empty)}",
            advice="Give the split a folder with images, or leave all of it to "
            "data.validation_fraction and data.test_fraction, with enough images.",
        )


def classes_missing(dataset: Dataset) -> Iterator[Finding]:
    """Classes that a split lacks; without training images a class cannot be learnt."""
    present = {record.split for record in dataset.records}
    for split in (split for split in SPLITS if split in present):
        counts = dataset.counts()[split]
        missing = [name for name in dataset.classes if not counts[name]]
        if missing:
            yield Finding(
                kind="classes_missing",
                action="stop" if split == "train" else "warn",
                message=f"{_classes(missing)} without images in {split}: {named(missing)}",
                advice="A class without training images cannot be learnt: add some, or remove it."
                if split == "train"
                else f"Scores on {split} say nothing about these classes.",
                classes=tuple(missing),
            )


def tiny_classes(dataset: Dataset, *, minimum: int) -> Iterator[Finding]:
    """Classes with fewer images than the configuration asks for."""
    counts = Counter(record.label for record in dataset.records)
    tiny = [name for name in dataset.classes if 0 < counts[name] < minimum]
    if tiny:
        yield Finding(
            kind="tiny_classes",
            action="warn",
            message=f"{_classes(tiny)} with fewer than {minimum} images: {named(tiny)}",
            advice="Too few to learn from and to judge by: add images, or merge classes "
            "(data.minimum_images_per_class sets the limit).",
            classes=tuple(tiny),
        )


def imbalance(dataset: Dataset, *, maximum_ratio: float) -> Iterator[Finding]:
    """A largest class of training that dwarfs the smallest."""
    counts = Counter(record.label for record in dataset.split("train")).most_common()
    if not counts or counts[0][1] <= maximum_ratio * counts[-1][1]:
        return
    (largest, most), (smallest, fewest) = counts[0], counts[-1]
    yield Finding(
        kind="imbalance",
        action="warn",
        message=f"{most / fewest:.1f} times as many training images of {largest!r} ({most:,}) "
        f"as of {smallest!r} ({fewest:,}); reported beyond {maximum_ratio:g}",
        advice="Set training.imbalance to class_weights or stratified_sampling, "
        "and judge by balanced_accuracy or f1_macro.",
        classes=(largest, smallest),
    )


def named(names: Sequence[str]) -> str:
    """The first names, and the number of the rest."""
    rest = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {rest:,} more" if rest > 0 else "")


def _classes(names: Sequence[str]) -> str:
    return "1 class" if len(names) == 1 else f"{len(names):,} classes"
