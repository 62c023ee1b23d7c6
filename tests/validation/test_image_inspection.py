"""What is noted about each image file."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from darkroom.data.dataset import ImageRecord, make_dataset
from darkroom.images import ImageLimits, MemoryShortageError
from darkroom.validation.inspection import inspect_image, inspect_images

NOISE = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("mode", "name", "noted"),
    [
        ("RGB", "a.jpg", "RGB"),
        ("L", "a.jpg", "L"),
        ("CMYK", "a.jpg", "CMYK"),
        ("P", "a.png", "P"),
        ("1", "a.png", "1"),
        ("RGBA", "a.png", "RGBA"),
        ("LA", "a.png", "LA"),
        ("RGB", "a.webp", "RGB"),
        ("RGB", "a.bmp", "RGB"),
    ],
)
def test_format_mode_and_size_are_those_of_the_file(
    mode: str, name: str, noted: str, tmp_path: Path
) -> None:
    Image.fromarray(NOISE).convert(mode).save(tmp_path / name)

    facts = inspect_image(tmp_path / name)

    assert facts.is_usable
    assert (facts.mode, facts.width, facts.height) == (noted, 50, 40)
    assert facts.format.lower().replace("jpeg", "jpg") == name.split(".")[1]


def test_sixteen_bits_and_a_transparent_palette_are_noted(tmp_path: Path) -> None:
    Image.fromarray(NOISE[..., 0].astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.fromarray(NOISE).convert("P").save(tmp_path / "clear.png", transparency=0)

    assert inspect_image(tmp_path / "deep.png").mode == "I;16"
    assert inspect_image(tmp_path / "clear.png").mode == "P+alpha"


def test_a_truncated_an_alien_and_a_missing_file_are_facts_with_a_reason(tmp_path: Path) -> None:
    Image.fromarray(NOISE).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:-300])
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "drawing.jpg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')

    assert "truncated" in inspect_image(tmp_path / "cut.jpg").problem
    assert "not an image" in inspect_image(tmp_path / "text.jpg").problem
    assert "not an image in one of the formats" in inspect_image(tmp_path / "drawing.jpg").problem
    assert "No such file" in inspect_image(tmp_path / "missing.jpg").problem


def test_a_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    Image.new("1", (6000, 6000)).save(tmp_path / "bomb.png")
    Image.new("1", (1, 5000)).save(tmp_path / "thread.png")

    limits = ImageLimits(pixels=35_000_000, aspect_ratio=50, section="data")
    for name, problem in (
        ("bomb.png", "6000×6000 pixels; at most 35,000,000 are accepted (data.maximum_pixels)"),
        ("thread.png", "50 times the shorter (data.maximum_aspect_ratio)"),
    ):
        assert problem in inspect_image(tmp_path / name, limits=limits).problem


def test_a_large_jpeg_is_looked_at_reduced_and_described_as_it_is(tmp_path: Path) -> None:
    Image.fromarray(NOISE).resize((4000, 3000)).save(tmp_path / "photo.jpg")
    limits = ImageLimits(pixels=4_000_000)
    facts = inspect_image(tmp_path / "photo.jpg", limits=limits)
    assert (facts.problem, facts.width, facts.height) == ("", 4000, 3000)
    content = (tmp_path / "photo.jpg").read_bytes()
    (tmp_path / "photo.jpg").write_bytes(content[: len(content) // 2])
    assert "truncated" in inspect_image(tmp_path / "photo.jpg", limits=limits).problem


def test_a_lack_of_memory_says_nothing_about_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(*_: object, **__: object) -> None:
        raise MemoryError

    Image.fromarray(NOISE).save(tmp_path / "a.png")
    monkeypatch.setattr(Image.Image, "load", lacking)
    monkeypatch.setattr(PngImageFile, "load", lacking)
    with pytest.raises(MemoryShortageError, match="not enough memory to decode"):
        inspect_image(tmp_path / "a.png")


def test_facts_come_in_the_order_of_the_records_and_warnings_are_left_as_they_were(
    tmp_path: Path,
) -> None:
    widths = list(range(8, 8 + 200))
    for width in widths:
        Image.new("RGB", (width, 20)).save(tmp_path / f"{width:04}.png")
    records = [
        ImageRecord(path=f"{width:04}.png", label="a", split="train", size=1, sha256=str(width))
        for width in widths
    ]
    filters = list(warnings.filters)

    inspection = inspect_images(make_dataset(records, root=tmp_path, source=""))

    assert [facts.width for facts in inspection.facts] == widths
    assert warnings.filters == filters


def test_a_jpeg_with_more_pictures_behind_it_is_a_jpeg(tmp_path: Path) -> None:
    picture = Image.fromarray(NOISE)
    picture.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[picture])
    assert inspect_image(tmp_path / "a.jpg").format == "JPEG"
