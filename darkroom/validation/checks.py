"""Check files, duplicates, classes, splits and groups of a data set, as findings."""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from statistics import median

import numpy as np
from numpy.typing import NDArray

from darkroom.base.progress import SILENT, Progress
from darkroom.config import DataConfig, ProblemPolicy
from darkroom.config.sections import SPLITS
from darkroom.data.dataset import Dataset, ImageRecord
from darkroom.data.image_folder import HARMLESS_REASONS
from darkroom.data.listing import HIDDEN
from darkroom.images import EXTENSIONS, decode
from darkroom.validation.inspection import (
    COMPARED_SIDE,
    ImageFacts,
    Inspection,
    grey_square,
    near_pairs,
)
from darkroom.validation.report import Action, Finding, Kind, LeftOut, consequence

# --- file checks ---

MAX_ELONGATION = 4.0
"""Longer side to shorter: beyond it, a centre crop sees less than a quarter of the picture."""

MAX_ENLARGEMENT = 4.0
"""Shorter side against the median of the data set: beyond it either way, sharpness differs."""


def undecodable(inspection: Inspection, *, policy: ProblemPolicy) -> Iterator[Finding]:
    """Files that are no image, truncated, or too large."""
    notes = _notes(inspection, lambda facts: facts.problem, usable=False)
    if notes:
        yield Finding(
            kind="undecodable",
            action=policy,
            message=f"{_images(len(notes))} cannot be decoded",
            advice=consequence(policy, key="data.on_undecodable"),
            files=tuple(notes),
            notes=notes,
        )


def wrong_extensions(inspection: Inspection) -> Iterator[Finding]:
    """Files whose content is of another format than their names say."""
    notes = {
        record.path: f"holds {facts.format}"
        for record, facts in zip(inspection.dataset.records, inspection.facts, strict=True)
        if facts.is_usable and _extension(record.path) not in ("", *EXTENSIONS[facts.format])
    }
    if notes:
        yield Finding(
            kind="wrong_extension",
            action="warn",
            message=f"{_images(len(notes))} of another format than the name says",
            advice="They are read by content, so this does no harm here; other programs may fail.",
            files=tuple(notes),
            notes=notes,
        )


def odd_modes(inspection: Inspection) -> Iterator[Finding]:
    """Inks, palettes, transparency, 16 bits, and grey among coloured pictures or the reverse."""
    modes = Counter(facts.mode for facts in inspection.facts)
    usual = "L" if modes["L"] > modes["RGB"] else "RGB"
    notes = _notes(inspection, lambda facts: _oddity(facts.mode, usual=usual))
    if notes:
        kinds = Counter(notes.values()).most_common()
        yield Finding(
            kind="odd_modes",
            action="warn",
            message=f"{_images(len(notes))} stored in an unusual way: "
            + "; ".join(f"{kind}: {count:,}" for kind, count in kinds),
            advice="All become 8-bit RGB. Where a way of storing goes with a class, "
            "the model may learn it instead of the subject.",
            files=tuple(notes),
            notes=notes,
        )


def extreme_sizes(inspection: Inspection) -> Iterator[Finding]:
    """Pictures far longer, smaller or larger than the rest."""
    sides = [min(facts.width, facts.height) for facts in inspection.facts if facts.is_usable]
    usual = median(sides) if sides else 0
    notes = _notes(inspection, lambda facts: _extremity(facts, usual=usual))
    if notes:
        yield Finding(
            kind="extreme_sizes",
            action="warn",
            message=f"{_images(len(notes))} of an extreme size or shape",
            advice=f"The shorter side is {usual:g} pixels in the median. "
            "The network sees a square from the middle, at one size for all.",
            files=tuple(notes),
            notes=notes,
        )


def _extension(path: str) -> str:
    return PurePosixPath(path).suffix.lower()


def _notes(
    inspection: Inspection, describe: Callable[[ImageFacts], str], *, usable: bool = True
) -> dict[str, str]:
    """What `describe` has to say about files, by path; silence is left out."""
    return {
        record.path: note
        for record, facts in zip(inspection.dataset.records, inspection.facts, strict=True)
        if facts.is_usable == usable and (note := describe(facts))
    }


def _oddity(mode: str, *, usual: str) -> str:
    if mode in ("L", "RGB"):
        return "" if mode == usual else ("grey" if mode == "L" else "colour among grey")
    if mode.endswith("alpha") or mode in ("LA", "PA", "RGBA", "La", "RGBa"):
        return "transparency, laid on white"
    if mode.startswith(("I", "F")):
        return "16 bits, scaled to 8"
    names = {"CMYK": "CMYK inks, without a colour profile", "P": "palette", "1": "black or white"}
    return names.get(mode, f"mode {mode}")


def _extremity(facts: ImageFacts, *, usual: float) -> str:
    short, long = sorted((facts.width, facts.height))
    size = f"{facts.width}×{facts.height}"
    if long > MAX_ELONGATION * short:
        return f"{size}, {long / short:.1f} times as long as wide"
    if short * MAX_ENLARGEMENT < usual:
        return f"{size}, far smaller than the rest"
    if short > MAX_ENLARGEMENT * usual:
        return f"{size}, far larger than the rest"
    return ""


def _images(count: int) -> str:
    return f"{count:,} image" + ("" if count == 1 else "s")


# --- duplicate checks ---
# Checks for pictures that occur more than once, exactly or nearly.

MIN_CORRELATION = 0.95
"""Of the grey squares of near duplicates. Among 3,409 photographs of clothing, pairs of
different subjects within 6 bits of each other reached 0.949, the one real duplicate 1.0."""

Pairs = Mapping[int, int]
"""Position of an image to the position of the image that it repeats."""


@dataclass
class _Repeats:
    """Repeated images, by what is wrong about them."""

    across_splits: dict[int, int] = field(default_factory=dict)
    within_split: dict[int, int] = field(default_factory=dict)
    other_label: dict[int, int] = field(default_factory=dict)


def duplicates(inspection: Inspection, *, policy: ProblemPolicy) -> Iterator[Finding]:
    """The same bytes in two splits, twice in one split, or under two labels."""
    records, repeats = inspection.dataset.records, _Repeats()
    for group in _groups_by_content(inspection):
        _sort_out(group, records=records, into=repeats)
    if repeats.across_splits:
        yield _pair_finding(
            "leakage",
            repeats.across_splits,
            records=records,
            action=policy,
            message="{} also in a split that the model is judged by"
            + _under_another_label(repeats.across_splits, records=records),
            advice="Scores on images seen in training say nothing. "
            + consequence(policy, key="data.on_leakage"),
        )
    if repeats.within_split:
        yield _pair_finding(
            "duplicates",
            repeats.within_split,
            records=records,
            message="{} a second time in the same split and class",
            advice="They count double. Remove them if that is not meant.",
        )
    if repeats.other_label:
        yield _pair_finding(
            "label_conflicts",
            repeats.other_label,
            records=records,
            message="{} of the same content as an image of another class",
            advice="At most one of the labels is right: correct or remove the others.",
        )


def near_duplicates(
    inspection: Inspection,
    *,
    policy: Action,
    distance: int,
    progress: Progress = SILENT,
) -> Iterator[Finding]:
    """Images of two splits, or of two classes, that look the same but differ in their bytes.

    Args:
        policy: what becomes of pairs in two splits; those in two classes are always told only.
        distance: bits, of 64, in which the perceptual hashes of two images differ at most.
        progress: counts pairs while they are compared by their pixels.
    """
    records = inspection.dataset.records
    candidates = _candidates(inspection, distance=distance)
    repeats = _confirmed(candidates, inspection=inspection, progress=progress)
    if repeats.across_splits:
        yield _pair_finding(
            "near_duplicates",
            repeats.across_splits,
            records=records,
            action=policy,
            message="{} almost the same as one in a split that the model is judged by"
            + _under_another_label(repeats.across_splits, records=records),
            advice="Look at the pairs: if they show the same, scores are too good. "
            + consequence(policy, key="data.on_near_duplicates"),
        )
    if repeats.other_label:
        yield _pair_finding(
            "near_label_conflicts",
            repeats.other_label,
            records=records,
            message="{} almost the same as one of another class",
            advice="Look at the pairs: if they show the same, at most one label is right.",
        )


def not_compared(inspection: Inspection) -> str | None:
    """What the search for near duplicates had to pass over, and why."""
    usable = [facts for facts in inspection.facts if facts.is_usable]
    small = sum(facts.is_too_small_to_compare for facts in usable)
    even = sum(facts.looks is None for facts in usable) - small
    reasons = [
        f"{count:,} images {reason}"
        for count, reason in (
            (small, "with fewer than 32 pixels on the shorter side"),
            (even, "of almost one tone"),
        )
        if count
    ]
    if not reasons:
        return None
    return f"Near duplicates were not searched among {' and '.join(reasons)}."


def _groups_by_content(inspection: Inspection) -> list[list[int]]:
    """Positions of the usable images that share their content, groups of two and more."""
    positions = defaultdict(list)
    for position in inspection.usable:
        positions[inspection.dataset.records[position].sha256].append(position)
    return [group for group in positions.values() if len(group) > 1]


def _sort_out(group: Sequence[int], *, records: Sequence[ImageRecord], into: _Repeats) -> None:
    """Keep one image of a group, of the split that matters most; the rest repeat it."""
    kept = max(group, key=lambda position: (SPLITS.index(records[position].split), -position))
    firsts: dict[str, int] = {}  # of each class
    for position in group:
        firsts.setdefault(records[position].label, position)
    two = sorted(firsts.values())[:2]  # one of them is of another class than any image
    for position in group:
        other = next((o for o in two if records[o].label != records[position].label), None)
        if other is not None:
            into.other_label[position] = other
        if records[position].split != records[kept].split:
            into.across_splits[position] = kept
        elif position != kept and other is None:
            into.within_split[position] = kept


def _candidates(inspection: Inspection, *, distance: int) -> _Repeats:
    """For each image, the nearest look-alike by hash of a later split, and of another class."""
    records = inspection.dataset.records
    chosen = _one_of_each_content(inspection)
    looks = np.array([inspection.facts[position].looks for position in chosen], dtype=np.uint64)
    labels = np.unique([records[p].label for p in chosen], return_inverse=True)[1]
    ranks = np.array([SPLITS.index(records[p].split) for p in chosen], dtype=np.int8)
    later, differing = _Nearest(len(chosen)), _Nearest(len(chosen))
    for one, other, bits in near_pairs(looks, distance=distance):
        for first, second in ((one, other), (other, one)):
            later.offer(first, second, bits=bits, where=ranks[first] < ranks[second])
            unlike = (labels[first] != labels[second]) & (ranks[first] == ranks[second])
            # One of the two is enough to show the pair.
            differing.offer(first, second, bits=bits, where=unlike & (first < second))
    return _Repeats(across_splits=later.positions(chosen), other_label=differing.positions(chosen))


def _one_of_each_content(inspection: Inspection) -> list[int]:
    """Positions of comparable images, exact copies passed over: the last split's stands."""
    by_content = {
        inspection.dataset.records[position].sha256: position
        for position in inspection.usable
        if inspection.facts[position].looks is not None
    }
    return sorted(by_content.values())


class _Nearest:
    """The nearest partner found so far for each of `count` images."""

    def __init__(self, count: int) -> None:
        self._partner: NDArray[np.int64] = np.full(count, -1, dtype=np.int64)
        self._bits: NDArray[np.uint8] = np.full(count, 255, dtype=np.uint8)

    def offer(
        self,
        ones: NDArray[np.intp],
        others: NDArray[np.intp],
        *,
        bits: NDArray[np.uint8],
        where: NDArray[np.bool_],
    ) -> None:
        """Take the partners that are nearer than those known. `ones` are all different.

        Args:
            ones: (n,) indices of images.
            others: (n,) indices of the partners offered to them.
            bits: (n,) in which the hashes of the two differ.
            where: (n,) the pairs that count; the others are passed over.
        """
        better = where & (bits < self._bits[ones])
        self._partner[ones[better]] = others[better]
        self._bits[ones[better]] = bits[better]

    def positions(self, chosen: Sequence[int]) -> dict[int, int]:
        """Pairs of the images' positions in the data set."""
        found = np.flatnonzero(self._partner >= 0)
        return {chosen[one]: chosen[self._partner[one]] for one in found.tolist()}


def _confirmed(candidates: _Repeats, *, inspection: Inspection, progress: Progress) -> _Repeats:
    """The candidates that are alike in their pixels, too."""
    pairs = {*candidates.across_splits.items(), *candidates.other_label.items()}
    alike = set()
    with progress.task("Comparing look-alikes", total=len(pairs)) as task:
        for one, other in pairs:
            if _look_alike(inspection, one=one, other=other):
                alike.add((one, other))
            task.advance()
    return _Repeats(
        across_splits=dict(alike & candidates.across_splits.items()),
        other_label=dict(alike & candidates.other_label.items()),
    )


def _look_alike(inspection: Inspection, *, one: int, other: int) -> bool:
    """Whether two images of near hashes are alike pixel by pixel, brightness aside."""
    dataset = inspection.dataset
    first, second = (
        grey_square(decode(dataset.file(dataset.records[position]), shorter_side=COMPARED_SIDE))
        for position in (one, other)
    )
    return bool(np.corrcoef(first.ravel(), second.ravel())[0, 1] >= MIN_CORRELATION)


def _pair_finding(
    kind: Kind,
    pairs: Pairs,
    *,
    records: Sequence[ImageRecord],
    message: str,
    advice: str,
    action: Action = "warn",
) -> Finding:
    number = "1 image" if len(pairs) == 1 else f"{len(pairs):,} images"
    ordered = sorted(pairs.items())
    return Finding(
        kind=kind,
        action=action,
        message=message.format(number),
        advice=advice,
        files=tuple(records[one].path for one, _ in ordered),
        notes={records[one].path: _note(records[one], records[other]) for one, other in ordered},
        counterparts={records[one].path: records[other].path for one, other in ordered},
    )


def _under_another_label(pairs: Pairs, *, records: Sequence[ImageRecord]) -> str:
    conflicts = sum(records[one].label != records[other].label for one, other in pairs.items())
    return f", {conflicts:,} of them under another label" if conflicts else ""


def _note(one: ImageRecord, other: ImageRecord) -> str:
    if one.label == other.label:
        return f"same as {other.path}"
    return f"labelled {one.label!r}; as {other.path} labelled {other.label!r}"


# --- class checks ---
# Checks of what is left to train on: classes, splits, groups, and what is not there.

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
