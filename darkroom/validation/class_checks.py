"""Checks of what is left to train on: classes, splits, groups, and what is not there."""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from darkroom.config import DataConfig
from darkroom.dataset import SPLITS, Dataset
from darkroom.sources.image_folder import HARMLESS_REASONS
from darkroom.sources.listing import HIDDEN
from darkroom.validation.report import Finding, LeftOut

_NAMES_SHOWN = 20

MANY_LOST = 0.1
"""Share of a class's files: beyond it, what is left may not stand for the class."""


def check_classes(
    dataset: Dataset, *, config: DataConfig, broken: Mapping[str, int] | None = None
) -> Iterator[Finding]:
    """All checks of this module; none opens an image.

    Args:
        broken: images that were left out since they cannot be decoded, by class.
    """
    yield from too_few_classes(dataset)
    yield from empty_splits(dataset)
    yield from classes_missing(dataset)
    yield from groups_across_splits(dataset, stops=config.on_shared_groups == "stop")
    yield from class_losses(dataset, broken=broken or {})
    yield from files_left_out(dataset)
    yield from similar_classes(dataset)
    yield from tiny_classes(dataset, minimum=config.minimum_images_per_class)
    yield from imbalance(dataset, maximum_ratio=config.maximum_class_ratio)


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


def groups_across_splits(dataset: Dataset, *, stops: bool) -> Iterator[Finding]:
    """Images that a model is judged by, of a person, patient or place that an earlier split has."""
    splits_of: dict[str, set[int]] = defaultdict(set)
    for record in dataset.records:
        splits_of[record.group].add(SPLITS.index(record.split))
    shared = [
        record
        for record in dataset.records
        if record.group and min(splits_of[record.group]) < SPLITS.index(record.split)
    ]
    if not shared:
        return
    counts, sizes = (Counter(r.split for r in records) for records in (shared, dataset.records))
    shares = [
        f"{counts[split]:,} of {sizes[split]:,} {split} images" for split in SPLITS if counts[split]
    ]
    groups = len({record.group for record in shared})
    yield Finding(
        kind="groups_across_splits",
        action="stop" if stops else "warn",
        message=f"{' and '.join(shares)} show one of {groups:,} groups that an earlier split "
        "shows, too",
        advice="Scores on them say little about new people, patients or places. Have the splits "
        "made here, by group: data.splits={train: [FOLDER, …]} with all folders, or "
        "data.label_columns.split=none, takes them together.",
        files=tuple(record.path for record in shared),
        notes={record.path: f"group {record.group}" for record in shared},
    )


def class_losses(dataset: Dataset, *, broken: Mapping[str, int]) -> Iterator[Finding]:
    """Classes of which many files could not be used."""
    kept = Counter(record.label for record in dataset.records)
    lost = Counter(dataset.provenance.lost) + Counter(broken)
    many = {
        name: f"{name} ({count:,} of {count + kept[name]:,})"
        for name, count in sorted(lost.items())
        if count >= MANY_LOST * (count + kept[name])
    }
    if many:
        yield Finding(
            kind="class_losses",
            action="warn",
            message=f"{_classes([*many])} without many of their files: {named([*many.values()])}",
            advice="Look at the reasons in the table of what is left out; convert the files to "
            "JPEG or PNG, or repair them.",
            classes=tuple(many),
        )


def files_left_out(dataset: Dataset) -> Iterator[Finding]:
    """Files of the source that might have been meant to count."""
    reasons = [one for one in left_out(dataset) if one.reason not in HARMLESS_REASONS | {HIDDEN}]
    if reasons:
        total = sum(one.count for one in reasons)
        yield Finding(
            kind="files_left_out",
            action="warn",
            message=f"{total:,} file{'s' * (total != 1)} of the source left out: "
            + "; ".join(_told(one) for one in reasons),
            advice="If files that are left out should count, name the splits by data.splits or "
            "the labels by data.labels, move the files into class folders, or convert them; if "
            "not, name their folders in data.exclude.",
        )


def left_out(dataset: Dataset) -> list[LeftOut]:
    """What the source holds and the data set does not, the most frequent reason first."""
    counts: Counter[str] = Counter()
    for reason, count in dataset.left_out:
        counts[reason] += count
    examples = dataset.provenance.examples
    return [
        LeftOut(reason=reason, count=count, examples=examples.get(reason, ()))
        for reason, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    ]


def similar_classes(dataset: Dataset) -> Iterator[Finding]:
    """Classes whose names differ in case, spaces or the like alone."""
    names: dict[str, list[str]] = defaultdict(list)
    for name in dataset.classes:
        names[_simplified(name)].append(name)
    alike = [several for several in names.values() if len(several) > 1]
    if alike:
        pairs = [" and ".join(map(repr, several)) for several in alike]
        yield Finding(
            kind="similar_classes",
            action="warn",
            message=f"classes whose names are almost the same: {named(pairs)}",
            advice="If they are one class, give their folders, or their rows in the label file, "
            "one name: now the model has to tell them apart.",
            classes=tuple(name for several in alike for name in several),
        )


def _simplified(name: str) -> str:
    text = unicodedata.normalize("NFKC", name).casefold()
    return "".join(c for c in text if unicodedata.category(c)[0] not in "ZC" and c not in "_-")


def _told(one: LeftOut) -> str:
    example = f", such as {one.examples[0]}" if one.examples else ""
    return f"{one.count:,} × {one.reason}{example}"


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
