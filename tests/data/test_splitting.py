"""Splits: kept where given, else stratified, repeatable and undisturbed by other data."""

from collections import Counter

import numpy as np
import pytest

from darkroom.data.assembly import Candidate, assign_splits, joined


def _class(label: str, count: int, *, split: str | None = None) -> list[Candidate]:
    return [Candidate(label, split, group=f"{label}{number}{split}") for number in range(count)]


def _assign(candidates: list[Candidate], *, seed: int = 1, validation=0.15, test=0.15):
    splits = assign_splits(
        candidates, validation_fraction=validation, test_fraction=test, seed=seed
    )
    return dict(zip(candidates, splits, strict=True))


def _counts(assigned) -> Counter:
    return Counter((candidate.label, split) for candidate, split in assigned.items())


def test_each_class_is_split_by_the_fractions():
    counts = _counts(_assign(_class("cat", 100) + _class("dog", 20), validation=0.1, test=0.2))
    assert counts == {
        ("cat", "train"): 70,
        ("cat", "validation"): 10,
        ("cat", "test"): 20,
        ("dog", "train"): 14,
        ("dog", "validation"): 2,
        ("dog", "test"): 4,
    }


def test_three_images_of_a_class_reach_all_three_splits():
    counts = _counts(_assign(_class("rare", 3), validation=0.01, test=0.01))
    assert counts == {("rare", "train"): 1, ("rare", "validation"): 1, ("rare", "test"): 1}


@pytest.mark.parametrize("count", range(1, 12))
@pytest.mark.parametrize("fraction", [0.01, 0.3, 0.49])
def test_no_class_is_left_without_training_images(count, fraction):
    counts = _counts(_assign(_class("cat", count), validation=fraction, test=fraction))
    assert counts["cat", "train"] >= 1


def test_given_splits_stay():
    candidates = [
        *_class("cat", 5, split="train"),
        *_class("cat", 2, split="validation"),
        *_class("cat", 2, split="test"),
    ]
    assert all(candidate.split == split for candidate, split in _assign(candidates).items())


@pytest.mark.parametrize(("given", "missing"), [("validation", "test"), ("test", "validation")])
def test_the_one_missing_split_is_taken_from_train(given, missing):
    candidates = _class("cat", 20, split="train") + _class("cat", 10, split=given)
    assert _counts(_assign(candidates)) == {
        ("cat", "train"): 17,
        ("cat", given): 10,
        ("cat", missing): 3,
    }


def test_the_fraction_is_of_all_training_images_also_where_only_some_may_leave():
    """Half of them belong to groups that are validated with, and have to stay."""
    groups = [f"person {number}" for number in range(40)]
    known = [Candidate("cat", "validation", group=group) for group in groups[:20]]
    train = [Candidate("cat", "train", group=group) for group in groups]
    splits = assign_splits([*known, *train], validation_fraction=0.1, test_fraction=0.2, seed=1)
    assert Counter(splits) == {"validation": 20, "test": 8, "train": 32}
    assert splits[20:40] == ["train"] * 20


def test_a_fraction_of_zero_takes_nothing():
    assert _counts(_assign(_class("cat", 10), test=0)) == {
        ("cat", "train"): 8,
        ("cat", "validation"): 2,
    }


def test_the_order_of_the_files_does_not_matter():
    candidates = _class("cat", 30) + _class("dog", 30)
    assert _assign(candidates) == _assign(candidates[::-1])


def test_the_seed_decides_who_goes_where():
    candidates = _class("cat", 100)
    assert _assign(candidates, seed=1) == _assign(candidates, seed=1)
    assert _assign(candidates, seed=1) != _assign(candidates, seed=2)


def test_another_class_does_not_move_the_others():
    before = _class("cat", 40) + _class("dog", 40)
    after = _assign(_class("ant", 40) + before)
    assert {candidate: after[candidate] for candidate in before} == _assign(before)


def test_one_more_image_moves_few_others():
    before = _assign(_class("cat", 200))
    after = _assign(_class("cat", 201))
    assert sum(before[candidate] != after[candidate] for candidate in before) <= 2


def test_a_group_is_never_parted():
    candidates = [Candidate("cat", None, group=f"series {number // 4}") for number in range(80)]
    splits = assign_splits(candidates, validation_fraction=0.2, test_fraction=0.2, seed=3)
    pairs = {(candidate.group, split) for candidate, split in zip(candidates, splits, strict=True)}
    assert len(pairs) == 20
    assert Counter(splits) == {"train": 48, "validation": 16, "test": 16}


def test_a_group_of_several_classes_is_never_parted():
    labels = ["shoes", "hat", "coat"]
    candidates = [Candidate(labels[i % 3], None, group=f"outfit {i // 3}") for i in range(90)]
    splits = assign_splits(candidates, validation_fraction=0.2, test_fraction=0.2, seed=3)
    pairs = {(candidate.group, split) for candidate, split in zip(candidates, splits, strict=True)}
    assert len(pairs) == 30
    assert set(splits) == {"train", "validation", "test"}


def test_a_group_larger_than_the_split_does_not_flood_it():
    large = [Candidate("cat", None, group="burst") for _ in range(50)]
    splits = assign_splits(
        large + _class("cat", 50), validation_fraction=0.1, test_fraction=0.1, seed=0
    )
    assert set(splits[:50]) == {"train"}
    assert Counter(splits) == {"train": 80, "validation": 10, "test": 10}


def _people(count: int, *, classes: int, seed: int = 0) -> list[Candidate]:
    """Images of people who each have a few, of several classes, some rare."""
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, classes + 1)
    return [
        Candidate(f"class {label:02}", None, group=f"person {person}")
        for person in range(count)
        for label in rng.choice(classes, size=rng.geometric(0.12), p=weights / weights.sum())
    ]


@pytest.mark.parametrize("seed", range(5))
def test_people_are_never_parted_and_each_class_is_split_by_the_fractions(seed):
    candidates = _people(300, classes=10, seed=seed)
    splits = assign_splits(candidates, validation_fraction=0.15, test_fraction=0.15, seed=seed)
    pairs = {(candidate.group, split) for candidate, split in zip(candidates, splits, strict=True)}
    assert len(pairs) == len({candidate.group for candidate in candidates})
    totals = Counter(candidate.label for candidate in candidates)
    counts = Counter(zip((c.label for c in candidates), splits, strict=True))
    for label, total in totals.items():
        for split in ("validation", "test"):
            assert counts[label, split] / total == pytest.approx(0.15, abs=0.03)


def test_a_class_that_one_person_alone_has_stays_in_train():
    candidates = [*_people(40, classes=3), *[Candidate("rare", None, "one person")] * 3]
    splits = assign_splits(candidates, validation_fraction=0.2, test_fraction=0.2, seed=1)
    assert set(splits[-3:]) == {"train"}
    assert set(splits) == {"train", "validation", "test"}


def test_the_order_of_people_does_not_matter():
    candidates = _people(50, classes=4)
    assert _assign(candidates) == _assign(candidates[::-1])


def test_copies_join_the_groups_that_hold_them():
    keys = joined(["ann", None, "bob", None, "cat"], ["1", "1", "2", "3", "2"])
    assert keys[0] == keys[1]
    assert keys[2] == keys[4]
    assert len(set(keys)) == 3
    assert keys[3] == "3"
