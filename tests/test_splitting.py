"""Splits: kept where given, else stratified, repeatable and undisturbed by other data."""

from collections import Counter

import pytest

from darkroom.sources.splitting import Candidate, assign_splits


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
