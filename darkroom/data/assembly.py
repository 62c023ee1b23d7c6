"""A local folder of images understood, hashed and split: the data set."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from darkroom.base.progress import SILENT, Progress
from darkroom.config import DataConfig
from darkroom.config.sections import Split
from darkroom.data.dataset import Dataset, ImageRecord, Provenance, make_dataset
from darkroom.data.hashes import HashIndex, hash_files
from darkroom.data.labels import Collection, LabelledFile, check_trainable
from darkroom.data.layout import FileReader, read_labelled
from darkroom.data.listing import LeftOut, Listing, list_folder
from darkroom.data.local import LocalFolder
from darkroom.data.polyvore import read_polyvore
from darkroom.data.source_names import Source

# --- splits ---
# Training, validation and test splits: as given, or made where they are missing.
#
# What is made is stratified by class and depends on the seed and the content alone, not on
# the order of the files. Each class is dealt out by itself, in the order of a hash of seed,
# class and key, so that another class, or a few more images, leave the rest where it was.
# Where groups hold images of several classes, as those of one person do, all classes are dealt
# out together, the largest groups first, each to the split that lacks its classes most.

_MAX_OF_A_POOL = 0.9
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
    """Assign each candidate a split: a list in their order.

    Given splits stay. Where none is validation or none is test, that share of each
    class's train images is taken for it, in whole groups: about the fraction, and at
    least one image of a class where three groups are there to be dealt out (two, where
    only one split is missing), never one that a given split has. A fraction of 0 leaves the split
    empty. Groups with images
    of several classes are dealt out so that each split comes near its share of each class.

    Args:
        validation_fraction: share of each class's train images, where no candidate is validation.
        test_fraction: the same, where none is test.
        seed: decides which groups leave train, by a hash of seed, class and group.
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
    scale = min(len(train) / len(pool), _MAX_OF_A_POOL / max(sum(wanted.values()), 1e-9))
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


# --- assembly ---


def understand(
    listing: Listing,
    *,
    source: Source,
    config: DataConfig,
    root: Path | None = None,
    read: FileReader | None = None,
) -> Collection:
    """Files with classes and given splits, and enough of them to train on.

    Args:
        root: where the files lie; the Polyvore data set cannot be understood without.
        read: the content of a file of the listing, by its path: label files are read by it.

    Raises:
        UserError: one class, no images, classes without training images, malformed JSON, folders
            or label files that can be read in two ways.
    """
    if source.polyvore and root:
        collection = read_polyvore(listing, root=root, classes=config.polyvore_classes)
    else:
        collection = read_labelled(
            listing, config=config, source=source.public_name, read=read or _reader(root)
        )
    check_trainable(collection, source=source.public_name)
    return collection


def _reader(root: Path | None) -> FileReader | None:
    return (lambda path: (root / path).read_bytes()) if root else None


def assemble(
    folder: LocalFolder,
    *,
    source: Source,
    config: DataConfig,
    seed: int,
    store: Path,
    progress: Progress = SILENT,
) -> Dataset:
    """The data set in a local folder, its images hashed and split.

    Copies of the same image in one source are never parted by a split that is made here.

    Args:
        folder: the source's files; what was left out on the way here is counted with the rest.
        source: as the user named it; says whether the layout is Polyvore's.
        config: how files are read, limits, and the shares of validation and test.
        seed: of the splits that are made here.
        store: the base folder; its index keeps the hashes of files that did not change.
        progress: counts what is hashed.

    Raises:
        UserError: as `understand`, or a file cannot be read.
    """
    listing = list_folder(folder.root, maximum_files=config.maximum_files)
    collection = understand(listing, source=source, config=config, root=folder.root)
    root = folder.root / collection.folder
    hashes = _hash(collection.files, root=root, store=store, progress=progress)
    return _dataset(
        collection.leaving_out(folder.left_out),
        root=root,
        source=source,
        hashes=hashes,
        config=config,
        seed=seed,
    )


def preview(collection: Collection, *, source: Source, config: DataConfig, seed: int) -> Dataset:
    """The data set that `assemble` would make, as far as it is known without the content.

    No image has a hash, so copies of one image may be in other splits than they will be.

    Args:
        collection: of a listing, whose files need not be here.
        source: as the user named it.
        config: the shares of validation and test.
        seed: of the splits that are made here.
    """
    root = Path(collection.folder)
    return _dataset(collection, root=root, source=source, hashes={}, config=config, seed=seed)


def _dataset(
    collection: Collection,
    *,
    root: Path,
    source: Source,
    hashes: Mapping[str, str],
    config: DataConfig,
    seed: int,
) -> Dataset:
    examples = LeftOut(collection.left_out).examples
    return make_dataset(
        _records(collection.files, hashes=hashes, config=config, seed=seed),
        root=root,
        source=source.public_name,
        left_out=sorted(collection.left_out.items()),
        provenance=Provenance(
            reading=collection.reading,
            examples={reason: tuple(paths) for reason, paths in sorted(examples.items())},
            lost=dict(collection.lost),
        ),
    )


def _hash(
    files: Sequence[LabelledFile], *, root: Path, store: Path, progress: Progress
) -> dict[str, str]:
    """SHA-256 by path relative to the root."""
    absolute = {file.path: os.path.abspath(root / file.path) for file in files}
    with HashIndex.in_store(store) as index:
        hashes = hash_files(list(absolute.values()), index=index, progress=progress)
    return {path: hashes[place] for path, place in absolute.items()}


def _records(
    files: Sequence[LabelledFile], *, hashes: Mapping[str, str], config: DataConfig, seed: int
) -> list[ImageRecord]:
    groups = joined([file.group for file in files], [hashes.get(f.path, f.path) for f in files])
    splits = assign_splits(
        [
            Candidate(file.label, file.split, group)
            for file, group in zip(files, groups, strict=True)
        ],
        validation_fraction=config.validation_fraction,
        test_fraction=config.test_fraction,
        seed=seed,
    )
    return [
        ImageRecord(
            file.path, file.label, split, file.size, hashes.get(file.path, ""), file.group or ""
        )
        for file, split in zip(files, splits, strict=True)
    ]
