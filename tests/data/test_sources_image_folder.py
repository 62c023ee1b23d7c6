"""Class folders in all the layouts in which people keep them."""

import os
from pathlib import Path

import pytest

from darkroom.base.errors import UserError
from darkroom.config.loader import load_config
from darkroom.data.image_folder import (
    BESIDE_SPLITS,
    COMPANION,
    DOCUMENT,
    EXCLUDED,
    MASK,
    NO_CLASS,
    NO_CLASS_IN_SPLIT,
    NOT_AN_IMAGE,
    REPEATED,
    AmbiguousLayoutError,
    read_image_folder,
)
from darkroom.data.labels import Collection, check_trainable
from darkroom.data.listing import (
    BAD_NAME,
    BROKEN_LINK,
    HIDDEN,
    LINK_CYCLE,
    OUTSIDE_LINK,
    list_folder,
)


def _read(root: Path, *paths: str, settings: tuple[str, ...] = ()) -> Collection:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"content")
    config = load_config(None, overrides=settings).data
    return read_image_folder(list_folder(root, maximum_files=1000), config=config, source="images")


def _images(*folders: str, of: int = 2) -> list[str]:
    return [f"{folder}/{number}.jpg" for folder in folders for number in range(of)]


def _labels(collection: Collection) -> dict[str, tuple[str, str | None]]:
    return {file.path: (file.label, file.split) for file in collection.files}


def test_class_folders_are_classes_and_have_no_splits(tmp_path):
    assert _labels(_read(tmp_path, "cat/1.jpg", "dog/2.png", "dog/close up/3.webp")) == {
        "cat/1.jpg": ("cat", None),
        "dog/2.png": ("dog", None),
        "dog/close up/3.webp": ("dog", None),
    }


@pytest.mark.parametrize("name", ["valid", "val", "validation", "Validation"])
def test_split_folders_are_recognised_by_their_usual_names(tmp_path, name):
    found = _read(tmp_path, "train/cat/1.jpg", f"{name}/cat/2.jpg", "test/dog/3.jpg")
    assert _labels(found) == {
        "train/cat/1.jpg": ("cat", "train"),
        f"{name}/cat/2.jpg": ("cat", "validation"),
        "test/dog/3.jpg": ("dog", "test"),
    }


def test_one_top_folder_is_looked_through(tmp_path):
    found = _read(tmp_path, "dogImages/train/beagle/1.jpg", "dogImages/test/pug/2.jpg", "README.md")
    assert found.folder == "dogImages"
    assert _labels(found) == {
        "train/beagle/1.jpg": ("beagle", "train"),
        "test/pug/2.jpg": ("pug", "test"),
    }


def test_one_top_folder_of_plain_classes_is_looked_through(tmp_path):
    found = _read(tmp_path, "animals/cat/1.jpg", "animals/dog/2.jpg")
    assert (found.folder, found.classes) == ("animals", ("cat", "dog"))


def test_a_source_with_a_train_split_alone_is_not_taken_for_one_class(tmp_path):
    found = _read(tmp_path, "train/cat/1.jpg", "train/dog/2.jpg")
    assert (found.folder, found.classes) == ("", ("cat", "dog"))


def test_a_class_named_like_a_split_stays_a_class(tmp_path):
    found = _read(tmp_path, "cat/1.jpg", "dog/2.jpg", "test/3.jpg", "test/more/4.jpg")
    assert found.classes == ("cat", "dog", "test")


def test_folders_beside_the_splits_are_left_out(tmp_path):
    found = _read(tmp_path, *_images("train/cat", "train/dog", "test/cat"), "extra/cow/3.jpg")
    assert found.classes == ("cat", "dog")
    assert found.left_out == {BESIDE_SPLITS: 1}
    assert found.left_out.examples == {BESIDE_SPLITS: ["extra/cow/3.jpg"]}


def test_hidden_and_foreign_files_are_left_out_and_counted(tmp_path):
    found = _read(
        tmp_path,
        "cat/1.jpg",
        "dog/2.JPEG",
        "stray.png",
        "cat/notes.txt",
        "cat/Thumbs.db",
        "cat/.DS_Store",
        "__MACOSX/cat/._1.jpg",
        ".git/objects/a.jpg",
        "cat/@eaDir/1.jpg/SYNOPHOTO_THUMB_XL.jpg",
        "#recycle/3.jpg",
    )
    assert sorted(file.path for file in found.files) == ["cat/1.jpg", "dog/2.JPEG"]
    assert found.left_out == {HIDDEN: 6, DOCUMENT: 1, NO_CLASS: 1}


def test_masks_beside_their_images_are_no_images_of_the_class(tmp_path):
    images = ("cyst/a (1).png", "cyst/a_mask.png", "scan/b.jpg", "scan/b 2.jpg")
    masks = ("cyst/a (1)_mask.png", "cyst/a (1)_mask_1.png", "scan/b_segmentation.png")
    found = _read(tmp_path, *images, *masks)
    assert sorted(file.path for file in found.files) == sorted(images)
    assert found.left_out == {MASK: 3}


@pytest.mark.parametrize("suffix", ["jpg", "JPEG", "png", "webp", "bmp", "gif", "tif", "jfif"])
def test_files_with_an_image_extension_are_kept_even_if_they_are_no_images(tmp_path, suffix):
    found = _read(tmp_path, f"cat/1.{suffix}")
    assert len(found.files) == 1


def test_linked_files_and_class_folders_are_read_wherever_they_lie(tmp_path):
    outside, root = tmp_path / "elsewhere", tmp_path / "root"
    _read(outside, "pig/1.jpg", "photo-0007")
    _read(root, "cat/1.jpg", "dog/2.jpg")
    (root / "cat/inside.jpg").symlink_to(root / "dog/2.jpg")
    (root / "cat/outside.jpg").symlink_to(outside / "photo-0007")
    (root / "pig").symlink_to(outside / "pig", target_is_directory=True)
    found = _read(root)
    paths = ["cat/1.jpg", "cat/inside.jpg", "cat/outside.jpg", "dog/2.jpg", "pig/1.jpg"]
    assert [file.path for file in found.files] == paths
    assert found.classes == ("cat", "dog", "pig")
    assert not found.left_out


def test_links_in_a_circle_and_to_nothing_are_left_out_and_named(tmp_path):
    _read(tmp_path, "cat/1.jpg", "dog/2.jpg")
    (tmp_path / "dog/broken.jpg").symlink_to(tmp_path / "nothing.jpg")
    (tmp_path / "dog/itself.jpg").symlink_to("itself.jpg")
    (tmp_path / "cat/all").symlink_to(tmp_path, target_is_directory=True)
    found = _read(tmp_path)
    assert [file.path for file in found.files] == ["cat/1.jpg", "dog/2.jpg"]
    assert found.left_out == {BROKEN_LINK: 2, LINK_CYCLE: 1}
    assert found.left_out.examples[LINK_CYCLE] == ["cat/all"]


def test_folders_that_link_to_each_other_come_to_an_end(tmp_path):
    names = [f"class{number}" for number in range(6)]
    _read(tmp_path, *_images(*names, of=1))
    for name in names:
        for other in names:
            (tmp_path / name / f"to {other}").symlink_to(tmp_path / other)
    assert LINK_CYCLE in list_folder(tmp_path, maximum_files=20_000).left_out


def test_links_are_not_followed_out_of_a_folder_that_no_person_made(tmp_path):
    outside, root = tmp_path / "secret.jpg", tmp_path / "root"
    outside.write_bytes(b"secret")
    _read(root, "cat/1.jpg")
    (root / "cat/inside.jpg").symlink_to(root / "cat/1.jpg")
    (root / "cat/outside.jpg").symlink_to(outside)
    (root / "more").symlink_to(tmp_path, target_is_directory=True)
    found = list_folder(root, maximum_files=10, follow_links=False)
    assert [file.path for file in found.files] == ["cat/1.jpg", "cat/inside.jpg"]
    assert found.left_out == {OUTSIDE_LINK: 2}


def test_a_folder_that_is_itself_a_link_is_followed(tmp_path):
    _read(tmp_path / "real", "cat/1.jpg", "dog/2.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    assert len(_read(tmp_path / "link").files) == 2


def test_file_names_that_are_no_text_are_left_out(tmp_path):
    _read(tmp_path, "cat/1.jpg")
    with open(os.fsencode(tmp_path / "cat") + b"/\xff.jpg", "wb"):
        pass
    assert _read(tmp_path).left_out == {BAD_NAME: 1}


def test_the_number_of_files_is_limited(tmp_path):
    _read(tmp_path, "cat/1.jpg", "dog/2.jpg")
    with pytest.raises(UserError, match=r"more than 1 files.*data\.maximum_files"):
        list_folder(tmp_path, maximum_files=1)


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([], "is empty"),
        (["notes.txt"], "no images in class folders"),
        (["1.jpg", "2.jpg"], "image outside the class folders"),
        (
            ["train/1.jpg", "valid/2.jpg"],
            "2 × image in a split's folder, outside its class folders",
        ),
        (["cat/1.jpg", "cat/2.jpg"], "one class only, 'cat'"),
        (["cat/1.jpg", "dog/1.jpg", "pig/1.cr2", "pig/2.mov"], "any image .*: 'pig'.*pig/1.cr2'"),
        (["train/a/1.jpg", "train/b/1.jpg", "train/c/1.txt"], "without any image .*: 'c'"),
        (["valid/cat/1.jpg", "test/dog/2.jpg"], "no images to train on: 'cat', 'dog'"),
        (["train/cat/1.jpg", "train/ant/1.jpg", "test/dog/2.jpg"], "to train on: 'dog'"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(tmp_path, paths, message):
    collection = _read(tmp_path, *paths)
    with pytest.raises(UserError, match=message):
        check_trainable(collection, source="images")


def test_the_description_says_what_is_there_and_what_will_be_made(tmp_path):
    found = _read(tmp_path, "train/cat/1.jpg", "train/dog/2.jpg", "val/cat/3.jpg", "x.txt")
    assert found.describe() == (
        "3 images in 2 classes (2 train, 1 validation; test will be taken from train); "
        "1 other file left out"
    )


_CLASSES = ("cat", "dog")
_LAYOUTS = {  # after the folders of well-known data sets: docs/data.md
    "brain tumor MRI": (("Training/cat", "Training/dog"), (), ("Testing/cat", "Testing/dog"), {}),
    "Fruits-360": (
        (
            "fruits-360_dataset/fruits-360/Training/cat",
            "fruits-360_dataset/fruits-360/Training/dog",
        ),
        (),
        ("fruits-360_dataset/fruits-360/Test/cat",),
        {BESIDE_SPLITS: "fruits-360_dataset/fruits-360/test-multiple_fruits"},
    ),
    "Intel scenes": (
        ("seg_train/seg_train/cat", "seg_train/seg_train/dog"),
        (),
        ("seg_test/seg_test/cat", "seg_test/seg_test/dog"),
        {BESIDE_SPLITS: "seg_pred/seg_pred"},
    ),
    "chest X-ray": (
        ("chest_xray/train/cat", "chest_xray/train/dog"),
        ("chest_xray/val/cat", "chest_xray/val/dog"),
        ("chest_xray/test/cat", "chest_xray/test/dog"),
        {BESIDE_SPLITS: "chest_xray/chest_xray/train/cat"},
    ),
    "cats and dogs": (
        ("training_set/training_set/cat", "training_set/training_set/dog"),
        (),
        ("test_set/test_set/cat", "test_set/test_set/dog"),
        {},
    ),
    "ASL alphabet": (
        ("asl_alphabet_train/asl_alphabet_train/cat", "asl_alphabet_train/asl_alphabet_train/dog"),
        (),
        (),
        {NO_CLASS_IN_SPLIT: "asl_alphabet_test/asl_alphabet_test"},
    ),
    "Food-11": (
        ("training/cat", "training/dog"),
        ("validation/cat", "validation/dog"),
        ("evaluation/cat", "evaluation/dog"),
        {},
    ),
    "GTSRB": (
        ("GTSRB/Final_Training/Images/cat", "GTSRB/Final_Training/Images/dog"),
        (),
        (),
        {NO_CLASS_IN_SPLIT: "GTSRB/Final_Test/Images"},
    ),
    "in any case, below images/": (
        ("images/TRAIN/cat", "images/TRAIN/dog"),
        ("images/Val/cat",),
        ("images/tEst/dog",),
        {},
    ),
    "with numbers": (
        ("1. Training/cat", "1. Training/dog"),
        ("2-val2017/cat",),
        ("03_test_images/dog",),
        {},
    ),
    "class first": (
        ("cat/train", "dog/train"),
        ("cat/val", "dog/val"),
        ("cat/test", "dog/test"),
        {},
    ),
    "Stanford dogs": (None, (), ("images/Images/cat", "images/Images/dog"), {}),
    "COVID radiography": (None, (), ("a/cat/images", "a/dog/images"), {COMPANION: "a/cat/masks"}),
    "PlantVillage": (
        None,
        (),
        ("PlantVillage/cat", "PlantVillage/dog"),
        {REPEATED: "PlantVillage/PlantVillage"},
    ),
    "test beside the classes": (("cat", "dog"), (), ("test/cat", "test/dog"), {}),
    "one folder of another": (None, (), ("a/b/cat", "a/b/dog"), {NO_CLASS: "a/b"}),
}


@pytest.mark.parametrize("name", _LAYOUTS)
def test_the_layouts_of_well_known_data_sets_are_understood(tmp_path, name):
    train, validation, test, left_out = _LAYOUTS[name]
    given = (
        {None: test} if train is None else {"train": train, "validation": validation, "test": test}
    )
    placed = {path: split for split, folders in given.items() for path in _images(*(folders or ()))}
    left = [path for folder in left_out.values() for path in _images(folder)]
    if REPEATED in left_out:
        left = _images("PlantVillage/PlantVillage/cat", "PlantVillage/PlantVillage/dog")
    found = _read(tmp_path, *placed, *left, "README.md")
    base = f"{found.folder}/" if found.folder else ""
    assert {base + file.path: file.split for file in found.files} == placed
    assert found.classes == _CLASSES
    assert all(file.label in file.path for file in found.files)
    assert found.left_out == {DOCUMENT: 1, **{reason: len(left) for reason in left_out}}


_AMBIGUOUS = {
    "a class called train": ("car/a", "car/b", "train/a", "train/b"),
    "a split that has no usual name": ("train/cat", "train/dog", "check/cat", "check/dog"),
    "a third folder of the same classes": (
        *("train/cat", "train/dog", "test/cat", "test/dog"),
        *("extra/cat", "extra/dog"),
    ),
    "variants of all images": ("color/cat", "color/dog", "grey/cat", "grey/dog"),
    "patients with classes inside": ("8863/0", "8863/1", "8864/0", "8864/1"),
    "splits in one folder of several": (
        "data/train/cat",
        "data/train/dog",
        "data/test/cat",
        "logos",
    ),
    "domains with splits and kinds": ("bottle/train/good", "bottle/test/good", "cable/train/good"),
    "parts of one collection": ("HAM_images_part_1", "HAM_images_part_2"),
    "images and their masks": ("jpg", "segmim"),
    "splits inside a split": ("train/train/cat", "train/val/cat", "train/train/dog"),
}


@pytest.mark.parametrize("name", _AMBIGUOUS)
def test_what_can_be_read_in_two_ways_is_refused_and_says_how_to_choose(tmp_path, name):
    with pytest.raises(AmbiguousLayoutError, match=r"data\.(splits|labels)") as caught:
        _read(tmp_path, *_images(*_AMBIGUOUS[name]))
    if name != "splits inside a split":
        assert "data.layout=classes" in str(caught.value) or "data.exclude" in str(caught.value)


def test_a_class_called_train_is_read_as_either_by_the_setting_that_the_message_names(tmp_path):
    paths = _images("bus/2019", "car/2019", "train/2019", "train/2020")
    with pytest.raises(AmbiguousLayoutError) as caught:
        _read(tmp_path, *paths)
    assert "'bus', 'car' left out (4 images)" in str(caught.value)
    assert "--set 'data.splits={train: train}'" in str(caught.value)
    as_classes = _read(tmp_path, settings=("data.layout=classes",))
    assert as_classes.classes == ("bus", "car", "train")
    assert len(as_classes.files) == 8
    as_split = _read(tmp_path, settings=("data.splits={train: train}",))
    assert as_split.classes == ("2019", "2020")
    assert as_split.left_out == {NO_CLASS: 4}


def test_splits_are_named_by_the_configuration(tmp_path):
    folders = ("a/fit/cat", "a/fit/dog", "a/fit2/cat", "a/judge/cat", "a/judge/dog", "a/rest/cat")
    settings = ("data.splits={train: [fit, a/fit2], test: judge}",)
    found = _read(tmp_path, *_images(*folders), settings=settings)
    assert found.folder == "a"
    assert {file.path.split("/")[0]: file.split for file in found.files} == {
        "fit": "train",
        "fit2": "train",
        "judge": "test",
    }
    assert found.left_out == {NO_CLASS: 2}
    assert found.reading == "splits in 'a': fit → train, fit2 → train, judge → test"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("data.splits={train: a/nope}", "train: there is no folder 'a/nope'; there are 'a', 'a/x'"),
        ("data.splits={train: cat}", "'cat' may be 'a/x/cat', 'a/y/cat'. Write the whole path"),
        ("data.splits={train: a, test: y}", "'a' of train and 'a/y' of test lie in one another"),
        ("data.splits={test: y}", "names splits, but not train"),
        ("data.splits={train: y, test: y}", "names 'y' more than once"),
        ("data.exclude=b", "nothing of the source matches 'b'"),
        ("data={layout: classes, splits: {train: y}}", "leave out layout, or splits"),
    ],
)
def test_a_setting_that_fits_nothing_is_refused(tmp_path, setting, message):
    with pytest.raises(UserError, match=message):
        _read(tmp_path, *_images("a/x/cat", "a/x/dog", "a/y/cat", "a/y/dog"), settings=(setting,))


@pytest.mark.parametrize(
    "pattern", ["data/unsorted", "unsorted", "*sorted", "data/un*", "unsorted/"]
)
def test_folders_are_left_out_by_the_configuration(tmp_path, pattern):
    paths = _images("data/cat", "data/dog", "data/unsorted/deep")
    found = _read(tmp_path, *paths, settings=(f"data.exclude={pattern!r}",))
    assert found.classes == _CLASSES
    assert found.left_out == {EXCLUDED: 2}


def test_an_empty_class_folder_is_refused_and_an_empty_split_is_not(tmp_path):
    (tmp_path / "test").mkdir()
    (tmp_path / "train/cow").mkdir(parents=True)
    found = _read(tmp_path, *_images("train/cat", "train/dog"))
    assert found.unusable == ("cow",)
    with pytest.raises(UserError, match=r"a class folder without any image .*: 'cow'"):
        check_trainable(found, source="images")


def test_a_class_called_like_a_split_does_not_vanish_without_images(tmp_path):
    assert _read(tmp_path, *_images("cat", "dog"), "train/1.mov").unusable == ("train",)


def test_what_a_class_loses_is_counted(tmp_path):
    found = _read(tmp_path, *_images("cat", "dog"), "dog/a.mov", "dog/b/c.raw", "dog/notes.txt")
    assert found.lost == {"dog": 2}
    assert found.left_out == {NOT_AN_IMAGE: 2, DOCUMENT: 1}


def test_the_forms_of_a_name_in_unicode_are_one_class(tmp_path):
    nfc, nfd = "caf\u00e9", "cafe\u0301"
    found = _read(tmp_path, *_images(nfc, nfd, "thé"))
    assert found.classes == ("caf\u00e9", "thé")
    assert len(found.files) == 6
    assert all((tmp_path / found.folder / file.path).is_file() for file in found.files)


def test_the_forms_of_a_name_in_unicode_are_one_class_in_all_splits(tmp_path):
    folders = (
        "donne\u0301es/train/cafe\u0301",
        "donn\u00e9es/val/caf\u00e9",
        "donn\u00e9es/train/tee",
    )
    found = _read(tmp_path, *_images(*folders))
    assert found.classes == ("caf\u00e9", "tee")
    assert {file.split for file in found.files} == {"train", "validation"}
    assert all((tmp_path / found.folder / file.path).is_file() for file in found.files)


def test_every_image_is_read_or_left_out_for_a_reason(tmp_path):
    for name, (train, *others) in _LAYOUTS.items():
        folders = [f for part in (train or (), *others[:2]) for f in part]
        root = tmp_path / name
        found = _read(root, *_images(*folders, *others[2].values()), "x.png", "y.jpg")
        images = sum(path.is_file() for path in root.rglob("*.*g"))
        assert len(found.files) + sum(found.left_out.values()) == images
