"""Class folders in all the layouts in which people keep them."""

import os
from pathlib import Path

import pytest

from darkroom.errors import UserError
from darkroom.sources.image_folder import NO_CLASS, NOT_AN_IMAGE, read_image_folder
from darkroom.sources.labelled import Collection, check_trainable
from darkroom.sources.listing import BAD_NAME, HIDDEN, OUTSIDE_LINK, list_folder


def _read(root: Path, *paths: str) -> Collection:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"content")
    return read_image_folder(list_folder(root, maximum_files=1000))


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
    found = _read(tmp_path, "train/cat/1.jpg", "train/dog/2.jpg", "extra/cow/3.jpg")
    assert found.classes == ("cat", "dog")
    assert found.left_out == {NO_CLASS: 1}


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
    )
    assert sorted(file.path for file in found.files) == ["cat/1.jpg", "dog/2.JPEG"]
    assert found.left_out == {HIDDEN: 4, NOT_AN_IMAGE: 1, NO_CLASS: 1}


@pytest.mark.parametrize("suffix", ["jpg", "JPEG", "png", "webp", "bmp", "gif", "tif", "jfif"])
def test_files_with_an_image_extension_are_kept_even_if_they_are_no_images(tmp_path, suffix):
    found = _read(tmp_path, f"cat/1.{suffix}")
    assert len(found.files) == 1


def test_links_inside_the_folder_count_and_links_out_of_it_do_not(tmp_path):
    outside, root = tmp_path / "secret.jpg", tmp_path / "root"
    outside.write_bytes(b"secret")
    _read(root, "cat/1.jpg", "dog/2.jpg")
    (root / "cat/inside.jpg").symlink_to(root / "dog/2.jpg")
    (root / "cat/outside.jpg").symlink_to(outside)
    (root / "cat/broken.jpg").symlink_to(root / "nothing.jpg")
    (root / "more").symlink_to(tmp_path, target_is_directory=True)
    found = _read(root)
    assert [file.path for file in found.files] == ["cat/1.jpg", "cat/inside.jpg", "dog/2.jpg"]
    assert found.left_out == {OUTSIDE_LINK: 3}


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
        (["train/1.jpg", "valid/2.jpg"], "2 × image outside the class folders"),
        (["cat/1.jpg", "cat/2.jpg"], "one class only, 'cat'"),
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
        "1 other files ignored"
    )
