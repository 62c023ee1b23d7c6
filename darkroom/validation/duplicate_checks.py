"""Checks for pictures that occur more than once, exactly or nearly."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from darkroom.config import ProblemPolicy
from darkroom.dataset import SPLITS, ImageRecord
from darkroom.images import decode
from darkroom.progress import SILENT, Progress
from darkroom.validation.inspection import COMPARED_SIDE, Inspection
from darkroom.validation.perceptual_hash import grey_square, near_pairs
from darkroom.validation.report import Action, Finding, Kind, consequence

MINIMUM_CORRELATION = 0.95
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
    """Images of two splits, or of two classes, that look the same but differ in their bytes."""
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
        """Take the partners that are nearer than those known. `ones` are all different."""
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
    return bool(np.corrcoef(first.ravel(), second.ravel())[0, 1] >= MINIMUM_CORRELATION)


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
