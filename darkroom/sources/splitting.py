"""Training, validation and test splits: as given, or made where they are missing.

What is made is stratified by class and depends on the seed and the content alone, not on
the order of the files. Each class is dealt out by itself, in the order of a hash of seed,
class and key, so that another class, or a few more images, leave the rest where it was.
Where groups hold images of several classes, as those of one person do, all classes are dealt
out together, the largest groups first, each to the split that lacks its classes most.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from darkroom.dataset import Split

_MOST_OF_A_POOL = 0.9
"""Share of the images that may be taken from train, where only some of them may."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An image that has to be in one split."""

    label: str
    split: Split | None
    """As given, or None where the source says nothing, which counts as train."""
    group: str
    """Images of one group are never parted; unique where an image stands for itself."""


def joined(groups: Sequence[str | None], contents: Sequence[str]) -> list[str]:
    """One key an image: the same for images of one group, for copies, and for what these join.

    Args:
        groups: person, patient or the like; None: not known.
        contents: equal where the images are.
    """
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def root(key: tuple[str, str]) -> tuple[str, str]:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for group, content in zip(groups, contents, strict=True):
        if group is not None:
            one, other = sorted((root(("", group)), root(("content", content))))
            parent[other] = one
    return ["\0".join(root(("content", content))).removeprefix("content\0") for content in contents]


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
    only one split is missing), never one that a given split has. A fraction of 0 leaves the split
    empty. Groups with images
    of several classes are dealt out so that each split comes near its share of each class.
    """
    given: list[Split] = [candidate.split or "train" for candidate in candidates]
    fractions: dict[Split, float] = {"test": test_fraction, "validation": validation_fraction}
    wanted = {split: share for split, share in fractions.items() if share and split not in given}
    train = [c for c, split in zip(candidates, given, strict=True) if split == "train"]
    judged = {c.group for c, split in zip(candidates, given, strict=True) if split != "train"}
    pool = [candidate for candidate in train if candidate.group not in judged]
    if not pool:
        return given
    # What may be moved has to yield the share of all that there is to train on.
    scale = min(len(train) / len(pool), _MOST_OF_A_POOL / max(sum(wanted.values()), 1e-9))
    wanted = {split: max(share, share * scale) for split, share in wanted.items()}
    labels = {(candidate.group, candidate.label) for candidate in pool}
    is_mixed = len(labels) > len({group for group, _ in labels})
    deal_out = _deal_out_mixed if is_mixed else _deal_out
    moved = deal_out(pool, fractions=wanted, seed=seed)
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
    groups: dict[str, set[str]] = defaultdict(set)
    for candidate in pool:
        groups[candidate.label].add(candidate.group)
    return groups


def _deal_out_mixed(
    pool: Sequence[Candidate], *, fractions: Mapping[Split, float], seed: int
) -> dict[str, Split]:
    """As `_deal_out`, for groups of several classes.

    Greedy: each group goes where the sum of (images - share)² / share over its classes grows
    least. The last group of a class that is in no other stays in train.
    """
    totals = Counter(candidate.label for candidate in pool)
    inside: dict[str, Counter[str]] = defaultdict(Counter)
    for candidate in pool:
        inside[candidate.group][candidate.label] += 1
    shares: dict[Split, float] = {"train": 1 - sum(fractions.values()), **fractions}
    dealt: dict[Split, Counter[str]] = {split: Counter() for split in shares}

    def cost(split: Split, group: str) -> float:
        share, there = shares[split], dealt[split]
        return sum(
            count * (count + 2 * (there[label] - share * totals[label])) / (share * totals[label])
            for label, count in inside[group].items()
        )

    ranks = {group: _rank(group, label="", seed=seed) for group in inside}
    moved: dict[str, Split] = {}
    for group in sorted(inside, key=lambda group: (-inside[group].total(), ranks[group])):
        best = min(shares, key=lambda split: cost(split, group))
        if any(not dealt["train"][label] for label in inside[group]):
            best = "train"  # what cannot be learnt need not be judged
        dealt[best].update(inside[group])
        if best != "train":
            moved[group] = best
    return moved


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
