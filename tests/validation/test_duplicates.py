"""The same picture twice: exactly, or nearly."""

import io
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from darkroom.base.files import sha256_of
from darkroom.config import DataConfig
from darkroom.config.sections import SPLITS
from darkroom.data.dataset import Dataset, ImageRecord, make_dataset
from darkroom.validation import ValidationReport, checks, clean, validate
from darkroom.validation.inspection import near_pairs, perceptual_hash


def picture(seed: int, *, size: tuple[int, int] = (96, 128)) -> Image.Image:
    """A picture with a content of its own: soft blobs of colour."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", size, tuple(rng.integers(0, 256, 3).tolist()))
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y, w, h = (rng.random(4) * [*size, *size]).astype(int).tolist()
        draw.ellipse((x, y, x + w // 2, y + h // 2), fill=tuple(rng.integers(0, 256, 3).tolist()))
    return image


def save(image: Image.Image, root: Path, path: str, **options: object) -> str:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    image.save(root / path, **options)
    return path


def dataset_of(root: Path) -> Dataset:
    """The data set in split/class/file folders."""
    return make_dataset(
        [
            ImageRecord(
                path=file.relative_to(root).as_posix(),
                label=file.parent.name,
                split=file.parent.parent.name,
                size=file.stat().st_size,
                sha256=sha256_of(file),
            )
            for file in sorted(root.rglob("*.*"))
        ],
        root=root,
        source=str(root),
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A sound data set of two classes and three splits, two different pictures each."""
    seed = 0
    for split in ("train", "validation", "test"):
        for label in ("cat", "dog", "cat", "dog"):
            save(picture(seed), tmp_path, f"{split}/{label}/{seed}.png")
            seed += 1
    return tmp_path


def report_on(root: Path, **config: object) -> ValidationReport:
    return validate(dataset_of(root), config=DataConfig(minimum_images_per_class=1, **config))


def kinds(report: ValidationReport) -> set[str]:
    return {finding.kind for finding in report.findings}


def test_different_pictures_are_no_duplicates(root: Path) -> None:
    assert report_on(root).findings == ()


def test_a_copy_in_a_later_split_is_left_out_of_the_earlier(root: Path) -> None:
    for split in ("train", "validation", "test"):
        save(picture(50), root, f"{split}/cat/copy-{split}.png")

    report = report_on(root)
    finding = report.finding("leakage")

    assert finding.files == ("train/cat/copy-train.png", "validation/cat/copy-validation.png")
    assert set(finding.counterparts.values()) == {"test/cat/copy-test.png"}
    assert finding.action == "leave_out"
    cleaned = clean(dataset_of(root), report)
    assert cleaned.left_out == (("also in another split", 2),)
    assert {record.path for record in cleaned.records if "copy" in record.path} == {
        "test/cat/copy-test.png"
    }


@pytest.mark.parametrize(("policy", "severity"), [("stop", "error"), ("warn", "warning")])
def test_leakage_stops_or_warns_as_configured(root: Path, policy: str, severity: str) -> None:
    save(picture(0), root, "test/cat/copy.png")

    report = report_on(root, on_leakage=policy)

    assert report.finding("leakage").severity == severity
    assert clean(dataset_of(root), report).records == dataset_of(root).records


def test_a_copy_within_a_split_is_reported_and_kept(root: Path) -> None:
    save(picture(0), root, "train/cat/again.png")

    report = report_on(root)

    assert kinds(report) == {"duplicates"}
    assert report.finding("duplicates").files == ("train/cat/again.png",)
    assert report.finding("duplicates").counterparts == {"train/cat/again.png": "train/cat/0.png"}


def test_the_same_picture_under_two_labels_is_a_conflict_not_a_mere_copy(root: Path) -> None:
    save(picture(0), root, "train/dog/also-a-dog.png")

    report = report_on(root)

    assert kinds(report) == {"label_conflicts"}
    assert report.finding("label_conflicts").files == (
        "train/cat/0.png",
        "train/dog/also-a-dog.png",
    )
    assert "'dog'" in report.finding("label_conflicts").notes["train/cat/0.png"]


def test_leakage_says_when_the_labels_differ(root: Path) -> None:
    save(picture(0), root, "test/dog/copy.png")

    report = report_on(root)

    assert kinds(report) == {"leakage", "label_conflicts"}
    assert "1 of them under another label" in report.finding("leakage").message


def test_broken_files_of_the_same_bytes_are_no_duplicates(root: Path) -> None:
    for split in ("train", "test"):
        (root / split / "cat" / "empty.png").touch()

    report = report_on(root, on_undecodable="leave_out")

    assert kinds(report) == {"undecodable", "class_losses"}


@pytest.mark.parametrize("policy", ["warn", "leave_out"])
def test_a_resized_and_recompressed_copy_in_another_split_is_found(root: Path, policy: str) -> None:
    save(picture(0).resize((60, 80)), root, "test/cat/small.jpg", quality=60)

    report = report_on(root, on_near_duplicates=policy)

    assert kinds(report) == {"near_duplicates"}
    assert report.finding("near_duplicates").counterparts == {
        "train/cat/0.png": "test/cat/small.jpg"
    }
    kept = clean(dataset_of(root), report).records
    assert any(record.path == "train/cat/0.png" for record in kept) == (policy == "warn")
    assert any(record.path == "test/cat/small.jpg" for record in kept)


def test_a_recompressed_copy_under_another_label_of_the_same_split_is_found(root: Path) -> None:
    save(picture(0), root, "train/dog/again.jpg", quality=70)

    report = report_on(root)

    assert kinds(report) == {"near_label_conflicts"}
    assert report.finding("near_label_conflicts").files == ("train/cat/0.png",)


def test_tiny_pictures_are_not_searched_and_the_report_says_so(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "validation", "test"):
        for label in ("0", "1"):
            pixels = np.zeros((8, 8), np.uint8)
            pixels[2:6, 3:5] = rng.integers(200, 256, (4, 2))
            save(Image.fromarray(pixels), tmp_path, f"{split}/{label}/digit.png")

    report = report_on(tmp_path)

    assert report.findings == ()
    assert report.notes == (
        "Near duplicates were not searched among 6 images with fewer than 32 pixels on the "
        "shorter side.",
    )


def test_pictures_of_one_tone_are_not_taken_for_each_other(root: Path) -> None:
    for split, grey in (("train", 100), ("test", 104)):
        save(Image.new("RGB", (64, 64), (grey, grey, grey)), root, f"{split}/cat/even.png")

    report = report_on(root)

    assert report.findings == ()
    assert "2 images of almost one tone" in report.notes[0]


def test_the_hash_survives_resizing_and_compression_but_not_another_picture() -> None:
    original = picture(7, size=(300, 400))
    buffer = io.BytesIO()
    original.resize((120, 160)).save(buffer, "JPEG", quality=50)
    copied, other = perceptual_hash(Image.open(buffer)), perceptual_hash(picture(8))

    assert (perceptual_hash(original) ^ copied).bit_count() <= 3
    assert (perceptual_hash(original) ^ other).bit_count() > 16


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 2**64 - 1), max_size=12),
    st.lists(st.tuples(st.integers(0, 11), st.sets(st.integers(0, 63), max_size=8)), max_size=12),
    st.integers(0, 16),
)
def test_every_pair_within_the_distance_is_found(
    bases: list[int], variations: list[tuple[int, set[int]]], distance: int
) -> None:
    values = list(bases)
    for position, bits in variations:
        if position < len(bases):
            values.append(bases[position] ^ sum(1 << bit for bit in bits))

    found = set()
    for ones, others, bits in near_pairs(np.array(values, np.uint64), distance=distance):
        for one, other, differing in zip(ones, others, bits, strict=True):
            assert (values[one] ^ values[other]).bit_count() == differing
            found.add(frozenset((int(one), int(other))))

    assert found == {
        frozenset((one, other))
        for one in range(len(values))
        for other in range(one)
        if (values[one] ^ values[other]).bit_count() <= distance
    }


def test_a_crowd_of_the_same_looks_costs_a_bounded_number_of_comparisons() -> None:
    hashes = np.full(20_000, 12345, np.uint64)

    compared = sum(len(ones) for ones, _, _ in near_pairs(hashes, distance=0))

    assert 0 < compared <= 20_000 * 1_000


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(SPLITS)), min_size=2))
def test_copies_are_sorted_out_as_by_comparing_each_with_each(
    copies: list[tuple[str, str]],
) -> None:
    records = [
        ImageRecord(f"{number:03}", label, split, 1, "same")
        for number, (label, split) in enumerate(copies)
    ]
    found = checks._Repeats()
    checks._sort_out(range(len(records)), records=records, into=found)
    for position, record in enumerate(records):
        others = [n for n, other in enumerate(records) if other.label != record.label]
        assert found.other_label.get(position) == (others[0] if others else None)


def test_a_hundred_thousand_copies_are_sorted_out_in_time_that_grows_with_them() -> None:
    records = [ImageRecord(str(number), "a", "train", 1, "same") for number in range(100_000)]
    found = checks._Repeats()
    started = time.process_time()
    checks._sort_out(range(len(records)), records=records, into=found)
    assert time.process_time() - started < 5  # comparing each with each: four minutes
    assert len(found.within_split) == 99_999
