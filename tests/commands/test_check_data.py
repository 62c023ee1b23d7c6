"""What `check` shows of a data set, and what it foresees."""

import unicodedata
import zipfile
from pathlib import Path

import pytest

from commands.check import check_data
from darkroom.config.loader import load_config


def _check(source: Path, *settings: str) -> list[str]:
    config = load_config(None, overrides=settings, data=str(source))
    return check_data(config)[1]


def _write(root: Path, *folders: str, images: int = 6) -> Path:
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(images):
            (root / folder / f"{number}.jpg").write_bytes(f"{folder}{number}".encode())
    return root


def test_classes_splits_and_what_is_left_out_are_shown(tmp_path, capsys):
    root = _write(tmp_path / "mri", "Training/cat", "Training/dog", "Testing/cat", "Testing/dog")
    _write(root, "Unsorted", images=2)
    (root / "Training/dog/clip.mov").write_bytes(b"x")
    assert _check(root, "data.minimum_images_per_class=1") == []
    assert capsys.readouterr().out.splitlines() == [
        f"Data           {root}: 24 images in 2 classes (12 train, 12 test; validation will be "
        "taken from train); 3 other files left out",
        "  read as      splits: Training → train, Testing → test",
        "  class       train  validation        test",
        "  cat             5           1           6",
        "  dog             5           1           6",
        "  all            10           2          12",
        "  left out     2 × image in a folder beside the splits: Unsorted/0.jpg, Unsorted/1.jpg",
        "  left out     1 × not an image, by its extension: Training/dog/clip.mov",
        "  warning      If files that are left out should count, name the splits by data.splits or "
        "the labels by data.labels, move the files into class folders, or convert them; if not, "
        "name their folders in data.exclude.",
    ]


def test_archives_are_shown_like_their_folders(tmp_path, capsys):
    root = _write(tmp_path / "own", "a/train/cat", "a/train/dog", "a/val/cat", "a/val/dog")
    with zipfile.ZipFile(tmp_path / "own.zip", "w") as archive:
        for file in sorted(root.rglob("*.jpg")):
            archive.write(file, file.relative_to(root))
    shown = []
    for source in (root, tmp_path / "own.zip"):
        assert _check(source) == []
        shown.append(capsys.readouterr().out.replace(str(source), "SOURCE"))
    assert shown[0] == shown[1]


@pytest.mark.parametrize(
    ("folders", "images", "message"),
    [
        (("cat", "dog"), 1, "no images for validation and test"),
        (("cat",), 9, "one class only, 'cat'"),
        (("train/cat", "train/dog", "test/pig"), 9, "no images to train on: 'pig'"),
        (("bus/a", "bus/b", "train/a", "train/b"), 9, "can be read in two ways"),
    ],
)
def test_what_would_stop_the_run_is_foreseen(tmp_path, folders, images, message):
    problems = _check(_write(tmp_path / "own", *folders, images=images))
    assert [problem for problem in problems if message in problem]


def test_a_class_with_one_image_and_names_that_are_alike_are_warned_of(tmp_path, capsys):
    root = _write(tmp_path / "own", "cat", "dog", "Dog")
    _write(root, "pig", images=1)
    assert _check(root) == []
    shown = capsys.readouterr().out
    assert "1 class without images in validation: pig" in shown
    assert "1 class without images in test: pig" in shown
    assert "classes whose names are almost the same: 'Dog' and 'dog'" in shown


def test_no_name_reaches_the_terminal_raw(tmp_path, capsys):
    root = _write(tmp_path / "own", "cat\x1b[31m", "ねこ" * 30, "dog ", "e\u0301")
    (root / "dog " / "\x1b]0;x\x07.mov").write_bytes(b"x")
    assert _check(root) == []
    out = capsys.readouterr().out
    assert not any(unicodedata.category(c) == "Cc" for c in out.replace("\n", ""))
    assert "'dog '" in out
