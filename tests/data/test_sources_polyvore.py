"""The Polyvore data set: classes by category, splits by outfit, nothing lost unseen."""

import json
from pathlib import Path

import pytest

from darkroom.base.errors import UserError
from darkroom.data.labels import Collection
from darkroom.data.listing import list_folder
from darkroom.data.polyvore import (
    MISSING_IMAGE,
    TWICE,
    TWO_SPLITS,
    UNLISTED,
    UNMAPPED,
    read_polyvore,
)

_CATEGORIES = "2 Clothing\n41 Shoes\n50 High Heels\n341 Men's Dress Shirts\n"


def _outfit(set_id: str, *categories: int) -> dict[str, object]:
    items = [
        {"index": index, "name": "", "price": -1, "likes": 3, "image": "", "categoryid": category}
        for index, category in enumerate(categories, start=1)
    ]
    return {"name": "Day out", "views": 8, "set_id": set_id, "items": items, "desc": ""}


_OUTFITS = {
    "train": [_outfit("11", 2, 41), _outfit("12", 2, 50)],
    "valid": [_outfit("21", 41, 2)],
    "test": [_outfit("31", 2, 41)],
}


def _write(
    root: Path, outfits: dict[str, list], *, images: str = "images", labels: str = "."
) -> Path:
    (root / labels).mkdir(parents=True, exist_ok=True)
    (root / labels / "category_id.txt").write_text(_CATEGORIES)
    for split, sets in outfits.items():
        (root / labels / f"{split}_no_dup.json").write_text(json.dumps(sets))
        for outfit in sets:
            for item in outfit["items"]:
                path = root / images / outfit["set_id"] / f"{item['index']}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"image")
    return root


def _read(root: Path, **classes: tuple[int, ...]) -> Collection:
    return read_polyvore(list_folder(root, maximum_files=1000), root=root, classes=classes)


def _found(collection: Collection) -> dict[str, tuple[str, str | None]]:
    return {file.path: (file.label, file.split) for file in collection.files}


def test_categories_are_classes_and_files_of_outfits_are_splits(tmp_path):
    assert _found(_read(_write(tmp_path, _OUTFITS))) == {
        "images/11/1.jpg": ("Clothing", "train"),
        "images/11/2.jpg": ("Shoes", "train"),
        "images/12/1.jpg": ("Clothing", "train"),
        "images/12/2.jpg": ("High Heels", "train"),
        "images/21/1.jpg": ("Shoes", "validation"),
        "images/21/2.jpg": ("Clothing", "validation"),
        "images/31/1.jpg": ("Clothing", "test"),
        "images/31/2.jpg": ("Shoes", "test"),
    }


def test_the_configuration_maps_categories_to_classes(tmp_path):
    collection = _read(_write(tmp_path, _OUTFITS), footwear=(41, 50), clothes=(2,))
    assert collection.classes == ("clothes", "footwear")
    assert not collection.left_out


def test_items_of_unmapped_categories_are_counted(tmp_path):
    collection = _read(_write(tmp_path, _OUTFITS), footwear=(41, 50))
    assert len(collection.files) == 4
    assert collection.left_out == {UNMAPPED: 4}


def test_names_with_spaces_and_apostrophes_are_whole(tmp_path):
    collection = _read(_write(tmp_path, {"train": [_outfit("11", 341, 41)]}))
    assert collection.classes == ("Men's Dress Shirts", "Shoes")


def test_missing_and_unlisted_images_are_counted(tmp_path):
    _write(tmp_path, _OUTFITS)
    (tmp_path / "images/11/1.jpg").unlink()
    (tmp_path / "images/11/9.jpg").write_bytes(b"image")
    collection = _read(tmp_path)
    assert len(collection.files) == 7
    assert collection.left_out == {MISSING_IMAGE: 1, UNLISTED: 1}


def test_an_outfit_that_two_splits_list_stays_in_the_test(tmp_path):
    again = {**_OUTFITS, "train": [*_OUTFITS["train"], _outfit("31", 2, 41)]}
    collection = _read(_write(tmp_path, again))
    assert _found(collection) == _found(_read(_write(tmp_path / "once", _OUTFITS)))
    assert collection.left_out == {TWO_SPLITS: 2}


def test_an_item_listed_twice_counts_once(tmp_path):
    collection = _read(_write(tmp_path, {"train": [_outfit("11", 2, 41), _outfit("11", 2)]}))
    assert len(collection.files) == 2
    assert collection.left_out == {TWICE: 1}


@pytest.mark.parametrize(
    ("images", "labels"),
    [("data/images", "."), ("data/images", "data/label"), ("polyvore/images", "polyvore")],
)
def test_the_layouts_of_both_repositories_are_found(tmp_path, images, labels):
    collection = _read(_write(tmp_path, _OUTFITS, images=images, labels=labels))
    assert len(collection.files) == 8


def test_outfits_are_groups_so_that_missing_splits_can_be_made(tmp_path):
    collection = _read(_write(tmp_path, {"train": _OUTFITS["train"]}))
    assert {(file.split, file.group) for file in collection.files} == {
        ("train", "11"),
        ("train", "12"),
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[{", r"train_no_dup.json': Invalid JSON"),
        ("{}", r"train_no_dup.json': Input should be a valid (list|array)"),
        ('[{"items": []}]', r"at \[0\].set_id: Field required"),
        (
            '[{"set_id": "1", "items": [{"index": 1, "categoryid": "x"}]}]',
            r"at \[0\].items\[0\].categoryid: Input should be a valid integer",
        ),
    ],
)
def test_malformed_json_is_told_by_file_and_place(tmp_path, content, message):
    _write(tmp_path, _OUTFITS)
    (tmp_path / "train_no_dup.json").write_text(content)
    with pytest.raises(UserError, match=message):
        _read(tmp_path)


def test_many_problems_of_one_file_are_summed_up(tmp_path):
    _write(tmp_path, _OUTFITS)
    (tmp_path / "train_no_dup.json").write_text(json.dumps([{"items": []}] * 30))
    with pytest.raises(UserError, match=r"25 more such problems"):
        _read(tmp_path)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("train_no_dup.json", "has no 'train_no_dup.json'"),
        ("category_id.txt", "data.polyvore_classes"),
    ],
)
def test_a_missing_file_is_named(tmp_path, missing, message):
    (_write(tmp_path, _OUTFITS) / missing).unlink()
    with pytest.raises(UserError, match=message):
        _read(tmp_path)


def test_category_names_are_not_needed_where_the_configuration_maps_ids(tmp_path):
    (_write(tmp_path, _OUTFITS) / "category_id.txt").unlink()
    assert _read(tmp_path, shoes=(41,), clothes=(2,)).classes == ("clothes", "shoes")


def test_malformed_category_lines_are_named(tmp_path):
    (_write(tmp_path, _OUTFITS) / "category_id.txt").write_text("2 Clothing\nShoes\n\n")
    with pytest.raises(UserError, match=r"lines \[2\] are not"):
        _read(tmp_path)


def test_a_category_in_two_classes_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"\[41\] more than once"):
        _read(_write(tmp_path, _OUTFITS), shoes=(41,), footwear=(41, 50))


def test_outfits_without_any_image_folder_are_refused(tmp_path):
    _write(tmp_path, _OUTFITS, images="pictures")
    with pytest.raises(UserError, match="no images of the Polyvore data set"):
        _read(tmp_path)
