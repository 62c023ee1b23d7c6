"""Validating whole data sets: what stops, what is left out, what is only reported."""

import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from checkout import PHOTOGRAPHS
from darkroom.base.errors import UserError
from darkroom.base.files import sha256_of
from darkroom.config import DataConfig
from darkroom.data.dataset import Dataset, ImageRecord, Provenance, make_dataset
from darkroom.reports.validation_page import report_html
from darkroom.validation import ValidationReport, clean, raise_if_unusable, validate

PHOTOGRAPHS = PHOTOGRAPHS / "clothing-small.tar"
FEW = DataConfig(minimum_images_per_class=1)


def noise(seed: int, *, size: tuple[int, int] = (40, 40)) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


class Folder:
    """A data set under construction, in split/class/file folders."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._seed = 0

    def add(self, folder: str, *, images: int, **options: object) -> None:
        for _ in range(images):
            self._seed += 1
            self.save(noise(self._seed, **options), f"{folder}/{self._seed:05}.png")

    def save(self, image: Image.Image, path: str) -> None:
        self.write(b"", path)
        image.save(self.root / path)

    def write(self, content: bytes, path: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_bytes(content)

    def dataset(self) -> Dataset:
        records = [
            ImageRecord(
                path=file.relative_to(self.root).as_posix(),
                label=file.parent.name,
                split=file.parent.parent.name,
                size=file.stat().st_size,
                sha256=sha256_of(file),
            )
            for file in sorted(self.root.rglob("*.*"))
        ]
        return make_dataset(records, root=self.root, source="a folder")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A sound data set: two classes, three splits, no finding."""
    sound = Folder(tmp_path)
    for split in ("train", "validation", "test"):
        for label in ("cat", "dog"):
            sound.add(f"{split}/{label}", images=2)
    return sound


def kinds(report: ValidationReport) -> set[str]:
    return {finding.kind for finding in report.findings}


def test_a_sound_data_set_has_no_findings_and_is_left_as_it_is(folder: Folder) -> None:
    dataset = folder.dataset()

    report = validate(dataset, config=FEW)

    assert report.findings == ()
    assert report.files_checked == 12
    assert clean(dataset, report) == dataset
    raise_if_unusable(report)


def test_the_statistics_count_and_measure(folder: Folder) -> None:
    statistics = validate(folder.dataset(), config=FEW).statistics

    assert statistics.counts["train"] == {"cat": 2, "dog": 2}
    assert statistics.formats == {"PNG": 12}
    assert statistics.modes == {"RGB": 12}
    assert (statistics.width.minimum, statistics.width.maximum) == (40, 40)
    assert statistics.bytes == sum(record.size for record in folder.dataset().records)


def test_broken_images_stop_the_run_with_the_list_of_files(folder: Folder) -> None:
    whole = (folder.root / "train/cat/00001.png").read_bytes()
    folder.write(whole[:-40], "train/cat/cut.png")
    folder.write(b"no image", "test/dog/text.jpg")

    report = validate(folder.dataset(), config=FEW)

    with pytest.raises(UserError) as caught:
        raise_if_unusable(report)
    message = str(caught.value)
    assert "2 images cannot be decoded" in message
    assert "data.on_undecodable" in message
    assert "  train/cat/cut.png: broken image" in message
    assert "  test/dog/text.jpg: not an image" in message


def test_the_message_shows_twenty_files_and_the_number_of_the_rest(folder: Folder) -> None:
    for number in range(25):
        folder.write(b"no image", f"train/cat/text{number:02}.jpg")

    report = validate(folder.dataset(), config=FEW)

    with pytest.raises(UserError) as caught:
        raise_if_unusable(report)
    assert str(caught.value).count("text") == 20
    assert str(caught.value).endswith("  and 5 more")
    assert report.finding("undecodable").count == 25


def test_broken_images_are_left_out_and_counted_where_configured(folder: Folder) -> None:
    folder.write(b"no image", "train/cat/text.jpg")
    config = DataConfig(minimum_images_per_class=1, on_undecodable="leave_out")

    report = validate(folder.dataset(), config=config)

    raise_if_unusable(report)
    cleaned = clean(folder.dataset(), report)
    assert cleaned.left_out == (("cannot be decoded", 1),)
    assert len(cleaned.records) == 12
    assert report.statistics.counts["train"]["cat"] == 3
    assert report.statistics.remaining["train"]["cat"] == 2


def test_a_class_that_loses_all_its_training_images_stops_the_run(folder: Folder) -> None:
    folder.write(b"no image", "train/bird/text.jpg")
    config = DataConfig(minimum_images_per_class=1, on_undecodable="leave_out")

    report = validate(folder.dataset(), config=config)

    with pytest.raises(UserError, match="1 class without images in train: bird"):
        raise_if_unusable(report)


def test_a_single_class_stops_the_run(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    for split in ("train", "validation", "test"):
        folder.add(f"{split}/cat", images=1)

    with pytest.raises(UserError, match="1 class with images: cat"):
        raise_if_unusable(validate(folder.dataset(), config=FEW))


@pytest.mark.parametrize("empty", ["train", "validation", "test"])
def test_an_empty_split_stops_the_run(tmp_path: Path, empty: str) -> None:
    folder = Folder(tmp_path)
    for split in {"train", "validation", "test"} - {empty}:
        folder.add(f"{split}/cat", images=1)
        folder.add(f"{split}/dog", images=1)

    with pytest.raises(UserError, match=f"no images for {empty}"):
        raise_if_unusable(validate(folder.dataset(), config=FEW))


def test_a_data_set_without_images_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="0 class with images: none"):
        raise_if_unusable(validate(Folder(tmp_path).dataset(), config=FEW))


def test_a_class_that_only_the_test_lacks_is_a_warning(folder: Folder) -> None:
    folder.add("train/bird", images=2)
    folder.add("validation/bird", images=2)

    report = validate(folder.dataset(), config=FEW)

    assert [(f.kind, f.severity, f.classes) for f in report.findings] == [
        ("classes_missing", "warning", ("bird",))
    ]
    raise_if_unusable(report)


def _with(dataset: Dataset, **changes: object) -> Dataset:
    return replace(dataset, **changes)


def test_what_the_source_held_and_is_not_used_is_a_warning_with_reasons(folder: Folder) -> None:
    examples = {"not an image, by its extension": ("cat/1.mov", "cat/2.mov")}
    dataset = _with(
        folder.dataset(),
        left_out=(("not an image, by its extension", 3), ("hidden or system file", 9)),
        provenance=Provenance("class folders, no splits", examples, {"cat": 3}),
    )

    report = validate(dataset, config=FEW)

    finding = report.finding("files_left_out")
    assert finding.message == (
        "3 files of the source left out: 3 × not an image, by its extension, such as cat/1.mov"
    )
    assert report.finding("class_losses").message == (
        "1 class without many of their files: cat (3 of 9)"
    )
    assert [(one.reason, one.count) for one in report.source_left_out] == [
        ("hidden or system file", 9),
        ("not an image, by its extension", 3),
    ]
    page = report_html(report, dataset)
    assert "Read as class folders, no splits." in page
    assert "<code>cat/2.mov</code>" in page
    raise_if_unusable(report)


def test_hidden_files_and_documents_alone_are_no_finding(folder: Folder) -> None:
    left_out = (("hidden or system file", 9), ("text, table or other document", 2))
    report = validate(_with(folder.dataset(), left_out=left_out), config=FEW)
    assert report.findings == ()
    assert len(report.source_left_out) == 2


def test_broken_images_of_a_class_count_as_lost(folder: Folder) -> None:
    folder.write(b"no image", "train/cat/text.jpg")
    config = DataConfig(minimum_images_per_class=1, on_undecodable="leave_out")
    finding = validate(folder.dataset(), config=config).finding("class_losses")
    assert finding.classes == ("cat",)


def test_classes_of_almost_one_name_are_a_warning(folder: Folder) -> None:
    for name in ("Dog", "dog ", "t-shirt", "T shirt"):
        for split in ("train", "validation", "test"):
            folder.add(f"{split}/{name}", images=1)
    finding = validate(folder.dataset(), config=FEW).finding("similar_classes")
    assert finding.message == (
        "classes whose names are almost the same: 'Dog' and 'dog' and 'dog ', "
        "'T shirt' and 't-shirt'"
    )


def test_one_person_in_two_splits_is_a_finding_with_the_number_of_images(folder: Folder) -> None:
    dataset = folder.dataset()
    groups = {"train": "ann", "validation": "ann", "test": "bob"}
    records = tuple(replace(record, group=groups[record.split]) for record in dataset.records)

    report = validate(_with(dataset, records=records), config=FEW)

    finding = report.finding("groups_across_splits")
    count = len(dataset.split("validation"))
    assert f"{count} of {count} validation images show one of 1 groups" in finding.message
    assert {*finding.files} == {record.path for record in dataset.split("validation")}
    strict = DataConfig(minimum_images_per_class=1, on_shared_groups="stop")
    with pytest.raises(UserError, match="show one of 1 groups"):
        raise_if_unusable(validate(_with(dataset, records=records), config=strict))


def test_tiny_classes_and_imbalance_are_warnings(folder: Folder) -> None:
    folder.add("train/cat", images=9)
    config = DataConfig(minimum_images_per_class=7, maximum_class_ratio=5)

    report = validate(folder.dataset(), config=config)

    assert kinds(report) == {"tiny_classes", "imbalance"}
    assert report.finding("tiny_classes").classes == ("dog",)
    assert "5.5 times as many training images of 'cat' (11)" in report.finding("imbalance").message
    raise_if_unusable(report)


def test_a_wrong_extension_is_reported_and_a_synonym_is_not(folder: Folder) -> None:
    noise(100).save(folder.root / "train/cat/wrong.jpg", "PNG")
    noise(101).save(folder.root / "train/cat/fine.JPEG", "JPEG")
    noise(102).save(folder.root / "train/cat/fine.jfif", "JPEG")

    finding = validate(folder.dataset(), config=FEW).finding("wrong_extension")

    assert finding.notes == {"train/cat/wrong.jpg": "holds PNG"}


def test_odd_modes_are_named(folder: Folder) -> None:
    for seed, (mode, name) in enumerate(
        [("CMYK", "a.jpg"), ("P", "b.png"), ("RGBA", "c.png"), ("L", "d.png"), ("1", "e.png")]
    ):
        folder.save(noise(200 + seed).convert(mode), f"train/cat/{name}")
    deep = np.asarray(noise(210).convert("L")).astype(np.uint16) * 257
    folder.save(Image.fromarray(deep), "train/cat/f.png")

    report = validate(folder.dataset(), config=FEW)

    assert kinds(report) == {"odd_modes"}
    assert set(report.finding("odd_modes").notes.values()) == {
        "CMYK inks, without a colour profile",
        "palette",
        "transparency, laid on white",
        "grey",
        "black or white",
        "16 bits, scaled to 8",
    }


def test_grey_pictures_are_odd_only_among_coloured_ones(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    for seed, split in enumerate(("train", "validation", "test")):
        for label in ("cat", "dog"):
            folder.save(noise(10 * seed + len(label)).convert("L"), f"{split}/{label}x/a.png")
            folder.save(noise(99 * seed + ord(label[0])).convert("L"), f"{split}/{label}/a.png")

    assert "odd_modes" not in kinds(validate(folder.dataset(), config=FEW))

    folder.save(noise(500), "train/cat/coloured.png")
    report = validate(folder.dataset(), config=FEW)
    assert report.finding("odd_modes").notes == {"train/cat/coloured.png": "colour among grey"}


def test_extreme_sizes_are_measured_against_the_rest(folder: Folder) -> None:
    folder.save(noise(300, size=(200, 45)), "train/cat/long.png")
    folder.save(noise(301, size=(9, 9)), "train/cat/small.png")
    folder.save(noise(302, size=(161, 161)), "train/cat/large.png")

    finding = validate(folder.dataset(), config=FEW).finding("extreme_sizes")

    assert set(finding.files) == {f"train/cat/{name}.png" for name in ("long", "small", "large")}
    assert "4.4 times as long as wide" in finding.notes["train/cat/long.png"]


def test_the_report_survives_json_with_severity_and_count(folder: Folder) -> None:
    folder.write(b"no image", "train/cat/text.jpg")
    report = validate(folder.dataset(), config=FEW)

    text = report.model_dump_json()

    assert ValidationReport.model_validate_json(text) == report
    first = json.loads(text)["findings"][0]
    assert (first["kind"], first["severity"], first["count"]) == ("undecodable", "error", 1)


def test_the_page_is_self_contained_escaped_and_shows_examples(folder: Folder) -> None:
    folder.write(b"no image", "train/cat/<b>text.jpg")
    folder.save(noise(1), "test/dog/copy.png")
    dataset = folder.dataset()

    page = report_html(validate(dataset, config=FEW), dataset)

    assert page.count("data:image/jpeg;base64,") >= 2 + 4
    assert "&lt;b&gt;text.jpg" in page
    assert "<b>text.jpg" not in page
    assert "Stops the run" in page
    assert "http://" not in page
    assert "https://" not in page
    assert "<script" not in page


def test_the_page_stays_small_with_many_classes_and_findings(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    for number in range(40):
        folder.add(f"train/class{number}", images=3, size=(160, 30))
    dataset = folder.dataset()

    page = report_html(validate(dataset, config=FEW), dataset)

    assert "class39" in page
    assert len(page) < 1_000_000


@pytest.mark.slow
@pytest.mark.skipif(not PHOTOGRAPHS.exists(), reason="needs ../shared/data/clothing-small.tar")
def test_real_photographs_hold_one_look_alike_under_two_labels(tmp_path: Path) -> None:
    with tarfile.open(PHOTOGRAPHS) as archive:
        archive.extractall(tmp_path, filter="data")
    folder = Folder(tmp_path)
    for label in ("dress", "hat"):
        folder.save(noise(len(label)), f"test/{label}/noise.png")

    report = validate(folder.dataset(), config=DataConfig())

    assert report.files_checked == 3411
    assert report.finding("near_label_conflicts").count == 1
    assert report.finding("near_duplicates") is None
    assert report.finding("undecodable") is None
