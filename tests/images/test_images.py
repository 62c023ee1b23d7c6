"""Decoding and preprocessing: every mode, every refusal, and agreement with torchvision."""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from darkroom.data.image_folder import IMAGE_EXTENSIONS
from darkroom.images import (
    EXTENSIONS,
    OWN_IMAGES,
    REQUESTED_IMAGES,
    ImageError,
    ImageLimits,
    Preprocessing,
    as_requested,
    center_crop,
    decode,
    prepare,
    resize_shorter_side,
    to_rgb,
)
from hostile.images import picture, png_chunk

pillow_heif.register_heif_opener()
NOISE = np.random.default_rng(0).integers(0, 256, (24, 30, 3), dtype=np.uint8)


def encoded(image: Image.Image, format_name: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


SMOOTH = Image.fromarray(NOISE[::8, ::6]).resize((60, 48), Image.Resampling.BICUBIC)


def test_rgb_comes_back_as_it_was() -> None:
    decoded = decode(encoded(Image.fromarray(NOISE)))

    assert decoded.mode == "RGB"
    assert np.array_equal(np.asarray(decoded), NOISE)


def test_bytes_and_files_decode_alike(tmp_path: Path) -> None:
    content = encoded(Image.fromarray(NOISE), "JPEG")
    (tmp_path / "any.name").write_bytes(content)

    assert decode(content).tobytes() == decode(tmp_path / "any.name").tobytes()


@pytest.mark.parametrize("format_name", ["PNG", "BMP", "WEBP", "JPEG"])
def test_every_accepted_format_is_decoded(format_name: str) -> None:
    image = Image.fromarray(NOISE).resize((60, 48), Image.Resampling.BICUBIC)
    options = {"lossless": True} if format_name == "WEBP" else {}

    decoded = decode(encoded(image, format_name, **options))

    assert (decoded.size, decoded.mode) == ((60, 48), "RGB")
    error = np.abs(np.asarray(decoded, dtype=int) - np.asarray(image))
    assert error.mean() <= (20 if format_name == "JPEG" else 0)


@pytest.mark.parametrize("mode", ["L", "1"])
def test_grey_and_black_and_white_have_three_equal_channels(mode: str) -> None:
    image = Image.fromarray(NOISE).convert(mode)

    decoded = np.asarray(decode(encoded(image)))

    assert np.array_equal(decoded, np.repeat(np.asarray(image.convert("L"))[..., None], 3, axis=2))


@pytest.mark.parametrize(("mode", "clear"), [("LA", (40, 0)), ("RGBA", (10, 20, 30, 0))])
def test_what_is_transparent_shows_white(mode: str, clear: tuple[int, ...]) -> None:
    assert decode(encoded(Image.new(mode, (9, 9), clear))).getpixel((4, 4)) == (255, 255, 255)


def test_what_is_half_transparent_is_mixed_with_white() -> None:
    red, green, blue = decode(encoded(Image.new("RGBA", (9, 9), (0, 100, 200, 128)))).getpixel(
        (4, 4)
    )

    assert (red, green, blue) == pytest.approx((127, 177, 227), abs=1)


def test_a_palette_is_looked_up_and_its_transparent_colour_shows_white() -> None:
    image = Image.new("P", (9, 9), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])

    assert decode(encoded(image)).getpixel((4, 4)) == (200, 100, 50)
    assert decode(encoded(image, transparency=1)).getpixel((4, 4)) == (255, 255, 255)


def test_cmyk_becomes_rgb() -> None:
    decoded = decode(encoded(Image.new("CMYK", (9, 9), (255, 0, 0, 0)), "JPEG", quality=100))

    assert decoded.getpixel((4, 4)) == pytest.approx((0, 255, 255), abs=3)


@pytest.mark.parametrize("brightest", [255, 256, 257, 4095, 65535])
@pytest.mark.parametrize(
    ("format_name", "order"), [("PNG", "<u2"), ("TIFF", "<u2"), ("TIFF", ">u2"), ("PPM", "<u2")]
)
def test_sixteen_bit_grey_is_divided_by_257_whatever_its_brightest_pixel(
    brightest: int, format_name: str, order: str
) -> None:
    pixels = (np.arange(4096) % (brightest + 1)).reshape(64, 64).astype(np.uint16)
    pixels[-1, -1] = brightest
    decoded = decode(encoded(Image.fromarray(pixels.astype(order)), format_name))
    assert np.array_equal(np.asarray(decoded)[..., 0], pixels // 257)
    assert np.array_equal(np.asarray(decoded)[..., 2], pixels // 257)


def test_grey_whose_zero_is_white_is_turned_round() -> None:
    pixels = np.full((9, 9), 65535 - 257 * 100, np.uint16)
    image = Image.fromarray(pixels)
    assert decode(encoded(image, "TIFF", tiffinfo={262: 0})).getpixel((4, 4)) == (100,) * 3
    assert decode(encoded(image, "TIFF", tiffinfo={262: 1})).getpixel((4, 4)) == (155,) * 3


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_numbers_of_which_nothing_says_which_is_white_are_refused(kind: type) -> None:
    with pytest.raises(ImageError, match="nothing says which is white"):
        decode(encoded(Image.fromarray(np.ones((9, 9), kind)), "TIFF"))


def test_sixteen_bit_colour_of_a_tiff_keeps_its_upper_bits() -> None:
    header = b"II*\0\x08\0\0\0"
    entries = [
        (256, 3, 1, 1), (257, 3, 1, 1), (258, 3, 3, 134), (259, 3, 1, 1), (262, 3, 1, 2),
        (273, 4, 1, 140), (277, 3, 1, 3), (278, 3, 1, 1), (279, 4, 1, 6), (284, 3, 1, 1),
    ]  # fmt: skip
    folder = struct.pack("<H", len(entries))
    folder += b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    content = header + folder + struct.pack("<HHH", 16, 16, 16)
    assert len(content) == 140
    content += struct.pack("<HHH", 0xFFFF, 0x80FF, 0x00FF)
    assert decode(content).getpixel((0, 0)) == (255, 128, 0)


@pytest.mark.parametrize("mode", ["La", "PA", "RGBa", "LA", "RGBA"])
def test_every_mode_with_transparency_is_laid_on_white(mode: str) -> None:
    assert to_rgb(Image.new(mode, (3, 3))).getpixel((1, 1)) == (255, 255, 255)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(orientation: int) -> None:
    upright = Image.new("RGB", (40, 24), "white")
    upright.paste("red", (0, 0, 20, 12))
    stored = {
        1: lambda image: image,
        2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda image: image.transpose(Image.Transpose.ROTATE_180),
        4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
        6: lambda image: image.transpose(Image.Transpose.ROTATE_90),
        7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
        8: lambda image: image.transpose(Image.Transpose.ROTATE_270),
    }[orientation](upright)
    exif = Image.Exif()
    exif[0x0112] = orientation

    decoded = decode(encoded(stored, exif=exif))

    assert decoded.size == upright.size
    assert decoded.tobytes() == upright.tobytes()


@pytest.mark.parametrize("missing", [20, 200])
def test_a_truncated_jpeg_is_refused(missing: int) -> None:
    content = encoded(Image.fromarray(NOISE), "JPEG")

    with pytest.raises(ImageError, match="broken image: image file is truncated"):
        decode(content[:-missing])


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_is_refused(content: bytes) -> None:
    with pytest.raises(ImageError):
        decode(content)


def test_every_format_of_ones_own_is_read_by_content_and_its_names_are_taken_for_images() -> None:
    assert {name for names in EXTENSIONS.values() for name in names} == IMAGE_EXTENSIONS
    for format_name in EXTENSIONS:
        options = {"lossless": True} if format_name == "WEBP" else {"quality": 100}
        decoded = decode(encoded(SMOOTH, format_name, **options))
        assert (decoded.size, decoded.mode) == (SMOOTH.size, "RGB")
        error = np.abs(np.asarray(decoded, dtype=int) - np.asarray(SMOOTH))
        assert error.mean() < 5, format_name


@pytest.mark.parametrize("format_name", ["GIF", "TIFF", "AVIF", "HEIF", "PPM"])
def test_a_server_opens_few_formats_and_names_them(format_name: str) -> None:
    content = encoded(SMOOTH, format_name)
    with pytest.raises(ImageError, match=r"one of the formats JPEG, PNG, WEBP, BMP$"):
        decode(content, limits=REQUESTED_IMAGES)


def test_heic_without_what_reads_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    content = encoded(SMOOTH, "HEIF")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r"HEIC .* pip install 'darkroom\[train\]'"):
        decode(content)


def test_a_truncated_heic_is_refused() -> None:
    content = encoded(SMOOTH.resize((300, 200)), "HEIF")
    for size in (len(content) - 40, len(content) // 2, 40):
        with pytest.raises(ImageError):
            decode(content[:size])


@pytest.mark.parametrize("format_name", ["HEIF", "AVIF", "TIFF"])
def test_newer_formats_are_turned_upright_once(format_name: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    sideways = Image.new("RGB", (64, 40), "white")
    sideways.paste("red", (0, 20, 32, 40))
    # Of EXIF as bytes, HEIC's own sign is made as well, as telephones do.
    how = {"tiffinfo": {274: 6}} if format_name == "TIFF" else {"exif": exif.tobytes()}
    decoded = decode(encoded(sideways, format_name, quality=100, **how))
    assert decoded.size == (40, 64)
    red, _, blue = decoded.getpixel((5, 5))
    assert red > 200 > 60 > blue


@pytest.mark.parametrize("format_name", ["GIF", "TIFF", "WEBP", "PNG", "AVIF"])
def test_of_several_pictures_the_first_is_taken(format_name: str) -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    content = encoded(frames[0], format_name, save_all=True, append_images=frames[1:])
    red, _, blue = decode(content).getpixel((10, 10))
    assert red > 240 > 15 > blue


def test_a_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="No such file"):
        decode(tmp_path / "missing.png")


def test_too_many_pixels_are_refused_before_they_are_decoded() -> None:
    content = encoded(Image.new("1", (5001, 5000)))
    with pytest.raises(ImageError, match=r"5001×5000 pixels; at most 25,000,000 are accepted$"):
        decode(content, limits=REQUESTED_IMAGES)
    limits = ImageLimits(pixels=25_000_000, section="data")
    with pytest.raises(ImageError, match=r"25,000,000 are accepted \(data\.maximum_pixels\)"):
        decode(content, limits=limits)
    assert decode(content).size == (5001, 5000)


def test_more_pixels_than_pillow_opens_are_refused_in_the_same_words() -> None:
    with pytest.raises(ImageError, match="more than the 178,956,970 pixels"):
        decode(encoded(Image.new("1", (20_000, 9000))))


@pytest.mark.parametrize("size", [(8064, 6048), (6240, 4160)])
def test_the_size_of_a_telephones_jpeg_is_judged_as_it_is_decoded(size: tuple[int, int]) -> None:
    content = encoded(Image.new("L", size, 200), "JPEG")
    how = Preprocessing(resize_size=256, image_size=224, reduced_decoding=True)
    for limits in (REQUESTED_IMAGES, ImageLimits(pixels=25_000_000)):
        assert prepare(content, how, limits=limits).shape == (3, 224, 224)
    whole = how.model_copy(update={"reduced_decoding": False})
    with pytest.raises(ImageError, match=r"\d+×\d+ pixels; at most 25,000,000"):
        prepare(content, whole, limits=REQUESTED_IMAGES)


@pytest.mark.parametrize("size", [(1, 21), (21, 1), (100, 2001)])
def test_too_long_and_thin_is_refused(size: tuple[int, int]) -> None:
    content = encoded(Image.new("1", size))
    with pytest.raises(ImageError, match=r"at most 20 times the shorter$"):
        decode(content, limits=REQUESTED_IMAGES)
    limits = ImageLimits(aspect_ratio=20, section="data")
    with pytest.raises(ImageError, match=r"shorter \(data\.maximum_aspect_ratio\)"):
        decode(content, limits=limits)
    assert decode(content).size == size


def test_twenty_times_as_long_is_still_accepted() -> None:
    content = encoded(Image.new("1", (1, 20)))
    assert decode(content, limits=REQUESTED_IMAGES).size == (1, 20)


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_no_bytes_raise_anything_but_an_image_error(content: bytes) -> None:
    for prefix in (
        b"",
        b"\xff\xd8\xff\xe0",
        b"\x89PNG\r\n\x1a\n",
        b"BM",
        b"RIFF\x10\0\0\0WEBPVP8 ",
        b"GIF89a",
        b"II*\0\x08\0\0\0",
        b"\0\0\0\x18ftypheic",
        b"\0\0\0\x18ftypavif",
        b"P6 ",
    ):
        try:
            decode(prefix + content)
        except ImageError:
            continue


@pytest.mark.slow
@settings(deadline=None)
@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=4))
def test_no_damage_to_a_real_file_raises_anything_but_an_image_error(
    position: int, damage: bytes
) -> None:
    for format_name in EXTENSIONS:
        content = bytearray(encoded(Image.fromarray(NOISE), format_name))
        start = position % len(content)
        content[start : start + len(damage)] = damage
        try:
            decode(bytes(content))
        except ImageError:
            continue


def test_an_image_of_the_size_wanted_is_not_touched() -> None:
    image = Image.fromarray(NOISE)

    assert resize_shorter_side(image, 24) is image


def test_the_crop_is_taken_from_the_middle() -> None:
    pixels = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)

    assert np.array_equal(center_crop(pixels, 4), pixels[1:5, 2:6])


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(16, 300),
    height=st.integers(16, 300),
    size=st.integers(8, 96),
    margin=st.integers(0, 40),
    seed=st.integers(0, 1000),
)
def test_preprocessing_is_that_of_torchvision(
    width: int, height: int, size: int, margin: int, seed: int
) -> None:
    import torch
    from torchvision.transforms import v2

    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    preprocessing = Preprocessing(resize_size=size + margin, image_size=size)
    theirs = v2.Compose(
        [
            v2.Resize(size + margin, antialias=True),
            v2.CenterCrop(size),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(preprocessing.mean, preprocessing.std),
        ]
    )(image).numpy()

    ours = prepare(encoded(image), preprocessing)

    assert ours.dtype == np.float32
    assert ours.shape == (3, size, size)
    assert np.abs(ours - theirs).max() <= 1e-6


PHOTOGRAPH = Image.fromarray(
    np.random.default_rng(3).integers(0, 256, (30, 40, 3), dtype=np.uint8)
).resize((1600, 1201), Image.Resampling.BICUBIC)
"""Large, smooth, and of a size that no fraction divides."""


def prepared(content: bytes, *, reduced: bool, size: int = 64) -> np.ndarray:
    how = Preprocessing(resize_size=size + 10, image_size=size, reduced_decoding=reduced)
    return prepare(content, how)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("size", [40, 64, 200])
def test_a_large_jpeg_decoded_at_a_fraction_is_nearly_the_same(orientation: int, size: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(PHOTOGRAPH, "JPEG", quality=95, exif=exif)
    whole, reduced = (prepared(content, reduced=r, size=size) for r in (False, True))
    assert np.abs(whole - reduced).mean() < 0.02
    assert np.abs(whole - reduced).max() < 0.25


def test_a_fraction_is_decoded_only_where_the_image_is_far_larger_than_needed() -> None:
    content = encoded(PHOTOGRAPH, "JPEG", quality=95)
    small, large = (prepared(content, reduced=True, size=s) for s in (64, 600))
    assert not np.array_equal(small, prepared(content, reduced=False))
    assert np.array_equal(large, prepared(content, reduced=False, size=600))


def test_other_formats_are_decoded_whole() -> None:
    content = encoded(PHOTOGRAPH)
    assert np.array_equal(prepared(content, reduced=True), prepared(content, reduced=False))


def test_the_pictures_size_is_judged_before_it_is_reduced() -> None:
    content = encoded(Image.new("RGB", (20_000, 900)), "JPEG")
    how = Preprocessing(resize_size=74, image_size=64, reduced_decoding=True)
    with pytest.raises(ImageError, match="times the shorter"):
        prepare(content, how, limits=REQUESTED_IMAGES)


def test_a_progressive_jpeg_of_usual_scans_is_decoded() -> None:
    content = encoded(PHOTOGRAPH, "JPEG", progressive=True)
    assert decode(content).size == PHOTOGRAPH.size


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    content = encoded(PHOTOGRAPH, "JPEG", progressive=True)
    start = content.rindex(b"\xff\xda")
    bomb = content[:-2] + content[start:-2] * 300 + content[-2:]
    with pytest.raises(ImageError, match="scans, which takes too long"):
        decode(bomb, limits=REQUESTED_IMAGES)


def test_an_endless_animation_is_refused() -> None:
    frames = [Image.new("1", (1, 1), number % 2) for number in range(1002)]
    content = encoded(frames[0], save_all=True, append_images=frames[1:], duration=1)
    with pytest.raises(ImageError, match="1002 pictures"):
        decode(content, limits=REQUESTED_IMAGES)
    assert decode(content).size == (1, 1)


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(101 * 10**6)
    with pytest.raises(ImageError, match="larger than 100 MB"):
        decode(tmp_path / "huge.png", limits=REQUESTED_IMAGES)


def test_sixteen_bit_colours_are_decoded_to_eight() -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    row = b"\0" + struct.pack(">HHH", 0xFFFF, 0x8080, 0) * 2
    content = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(row * 2))
        + chunk(b"IEND", b"")
    )
    assert decode(content).getpixel((1, 1)) == (255, 128, 0)


@pytest.mark.parametrize("options", [{}, {"restart_marker_rows": 1}, {"subsampling": 0}])
def test_a_jpeg_whose_scan_ends_early_is_refused_although_it_has_its_end_mark(
    options: dict[str, int],
) -> None:
    whole = encoded(picture(320, 240), "JPEG", **options)
    assert decode(whole).size == (320, 240)
    assert decode(whole + b"what telephones write behind \xff\xd9").size == (320, 240)
    for missing in (40, len(whole) // 3, len(whole) // 2):
        with pytest.raises(ImageError, match="truncated"):
            decode(whole[: -2 - missing] + b"\xff\xd9")


@pytest.mark.slow
def test_lack_of_memory_is_not_a_broken_image(tmp_path: Path) -> None:
    """At every amount of memory: decoded, or short of memory, whichever library notices."""
    flat = Image.new("RGBA", (3000, 3000), "red")
    for name in ("PNG", "WEBP"):
        flat.save(tmp_path / name, name, lossless=True)
    program = """
import resource, sys, pathlib
from darkroom.images import MemoryShortageError, decode
def size():
    return int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
said = set()
for path in map(pathlib.Path, sys.argv[1:]):
    for megabytes in range(4, 260, 12):
        resource.setrlimit(resource.RLIMIT_AS, (size() + megabytes * 2**20, -1))
        try:
            decode(path)
            said.add("decoded")
        except MemoryShortageError as error:
            said.add(str(error)[:17])
print(*sorted(said), sep=", ")
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "PNG"), str(tmp_path / "WEBP")],
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("decoded, not enough memory\n", "")


def test_an_exif_block_of_60_000_tags_does_not_break_an_upright_picture() -> None:
    tags = b"".join(struct.pack("<HHII", 0x9000 + n % 5000, 4, 1, n) for n in range(60_000))
    orientation = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
    block = b"II*\0" + struct.pack("<IH", 8, 60_001) + orientation + tags + bytes(4)
    png = encoded(picture(40, 30), "PNG")
    marked = png[:33] + png_chunk(b"eXIf", block) + png[33:]
    assert decode(marked).size == (30, 40)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P"])
def test_a_transparent_picture_is_laid_on_white_in_bands_as_it_would_be_whole(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = picture(50, 37).convert("RGBA")
    image.putalpha(picture(50, 37).convert("L"))
    image = image.quantize(9) if mode == "P" else image.convert(mode)
    white = Image.new("RGBA", image.size, "white")
    whole = Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    assert to_rgb(image).tobytes() == whole.tobytes()
    monkeypatch.setattr("darkroom.images._BAND_PIXELS", 1)
    assert to_rgb(image).tobytes() == whole.tobytes()


@pytest.mark.parametrize("kind", ["HEIF", "TIFF", "large", "JPEG"])
def test_a_server_sees_what_the_model_does_of_an_image_that_it_would_not_open(kind: str) -> None:
    how = Preprocessing(resize_size=40, image_size=32, reduced_decoding=True)
    content = encoded(PHOTOGRAPH, "JPEG" if kind == "large" else kind)
    sent = as_requested(content, how, largest_bytes=1000 if kind == "large" else 10**6)
    assert (sent == content) == (kind == "JPEG")
    seen = prepare(sent, how, limits=REQUESTED_IMAGES)
    assert np.array_equal(seen, prepare(content, how, limits=OWN_IMAGES))
