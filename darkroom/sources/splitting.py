"""Training, validation and test splits: as given, or made where they are missing.

What is made is stratified by class and depends on the seed and the content alone, not on
the order of the files. Each class is dealt out by itself, in the order of a hash of seed,
class and key, so that another class, or a few more images, leave the rest where it was.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from darkroom.dataset import Split


@dataclass(frozen=True, slots=True)
class Candidate:
    """An image that has to be in one split."""

    label: str
    split: Split | None
    """As given, or None where the source says nothing, which counts as train."""
    group: str
    """Images of one group are never parted; unique where an image stands for itself."""


def assign_splits(
    candidates: Sequence[Candidate],
    *,
    validation_fraction: float,
    test_fraction: float,
    seed: int,
) -> list[Split]:
    """The split of each candidate, in their order.

    Given splits stay. Where none is validation or none is test, that share of each
    class's train images is taken for it, in whole groups: about the fraction, and at
    least one image of a class where three groups are there to be dealt out (two, where
    only one split is missing). A fraction of 0 leaves the split empty. A group with
    images of several classes counts with the rarest of them.
    """
    given: list[Split] = [candidate.split or "train" for candidate in candidates]
    fractions: dict[Split, float] = {"test": test_fraction, "validation": validation_fraction}
    wanted = {split: share for split, share in fractions.items() if share and split not in given}
    pool = [
        candidate for candidate, split in zip(candidates, given, strict=True) if split == "train"
    ]
    moved = _deal_out(pool, fractions=wanted, seed=seed)
    return [
        moved.get(candidate.group, split) if split == "train" else split
        for candidate, split in zip(candidates, given, strict=True)
    ]


def _deal_out(
    pool: Sequence[Candidate], *, fractions: Mapping[Split, float], seed: int
) -> dict[str, Split]:
    """The groups that leave the training images, and for which split."""
    sizes = Counter(candidate.group for candidate in pool)
    moved: dict[str, Split] = {}
    for label, groups in _groups_by_class(pool).items():
        ranked = sorted(groups, key=lambda group: _rank(group, label=label, seed=seed))
        moved |= _deal_out_class({group: sizes[group] for group in ranked}, fractions=fractions)
    return moved


def _groups_by_class(pool: Sequence[Candidate]) -> dict[str, set[str]]:
    """Groups by the class with which they count: the rarest of those that occur in them."""
    images = Counter(candidate.label for candidate in pool)
    labels: dict[str, set[str]] = defaultdict(set)
    for candidate in pool:
        labels[candidate.group].add(candidate.label)
    groups: dict[str, set[str]] = defaultdict(set)
    for group, names in labels.items():
        groups[min(names, key=lambda name: (images[name], name))].add(group)
    return groups


def _rank(group: str, *, label: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\0{label}\0{group}".encode()).digest()


def _deal_out_class(sizes: dict[str, int], *, fractions: Mapping[Split, float]) -> dict[str, Split]:
    """The groups of one class that leave train. `sizes`: images by group, in dealing order."""
    total = sum(sizes.values())
    left = dict(sizes)
    moved: dict[str, Split] = {}
    for position, (split, fraction) in enumerate(fractions.items()):
        still_to_come = len(fractions) - position  # train, and the splits after this one
        at_most = len(left) - still_to_come
        for group in _take(left.items(), images=round(fraction * total), at_most=at_most):
            moved[group] = split
            del left[group]
    return moved


def _take(groups: Iterable[tuple[str, int]], *, images: int, at_most: int) -> list[str]:
    """Groups in order that together hold `images` at most, but one if there may be any."""
    taken: list[str] = []
    room = images
    in_order = list(groups)
    for group, size in in_order:
        if size <= room and len(taken) < at_most:
            taken.append(group)
            room -= size
    if not taken and at_most > 0:
        smallest, _ = min(in_order, key=lambda pair: pair[1])
        return [smallest]
    return taken
