"""Decoding and preprocessing: the one definition, for training, evaluation and serving.

Pillow and numpy only, so that a server needs no torch. Everything here is pure.
"""

import io
import mmap
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile
from pydantic import BaseModel, ConfigDict, Field

from darkroom.base.errors import DarkroomError, UserError

# --- image parts ---
# The parts that an encoded image consists of, looked at before a decoder goes through them all.
#
# Pillow goes through a PNG's chunks and a JPEG's segments in Python: 400,000 empty ones, in
# 5 MB, took 2.7 s; 6,000 colour profiles that unpack to a megabyte each, 22 s.

MAX_PARTS = 20_000
"""Encoders write some 8 KB of pixels to a PNG's chunk: 100 MB are 12,500 chunks."""

MAX_NOTES = 1000
"""Segments of a JPEG before its first scan, and chunks of a PNG that hold no pixels: a colour
profile is cut into 255 segments at most, and editors leave some dozens of others."""

MAX_PROFILES = 4
"""Colour profiles of a PNG, which may have one; each unpacks to a megabyte."""

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
_START_OF_SCAN = 0xDA
_PIXELS = (b"IDAT", b"fdAT", b"fcTL")
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""What ends a scan: within one, FF is followed by 00, or is the mark of a restart."""
_END_OF_IMAGE = b"\xff\xd9"
_PADDING = bytes(16)


def excess_of_parts(content: bytes) -> str:
    """What there is more of than any encoder writes; empty: nothing."""
    if content.startswith(_PNG):
        return _excess_in_png(content)
    return _excess_in_jpeg(content) if content.startswith(_JPEG) else ""


def without_end_of_scan(content: bytes) -> bytes:
    """A JPEG of one scan without its end mark, so that a scan which ends early shows.

    A decoder that meets the mark too early fills what is missing with grey, and says nothing
    that Pillow passes on. Without the mark it asks for more, and gets zeros that are too few
    for another row. Other files are returned as they are.
    """
    start = _first_scan(content) if content.startswith(_JPEG) else None
    if start is None:
        return content
    end = _MARKER.search(content, start + 2)
    if end is None or end.group() != _END_OF_IMAGE:
        return content  # without an end, or with further scans
    return content[: end.start()] + _PADDING


def webp_size(content: bytes) -> tuple[int, int] | None:
    """Width and height of a WebP's canvas; None: another file, or none that can be read."""
    if content[:4] != b"RIFF" or content[8:12] != b"WEBP" or len(content) < 30:
        return None
    kind = content[12:16]
    if kind == b"VP8X":
        sides = content[24:27], content[27:30]
        width, height = (int.from_bytes(side, "little") + 1 for side in sides)
        return width, height
    if kind == b"VP8L":
        bits = int.from_bytes(content[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", content, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _excess_in_png(content: bytes) -> str:
    position, notes, profiles = len(_PNG), 0, 0
    for _ in range(MAX_PARTS):
        if position + 8 > len(content):
            return ""
        length, name = struct.unpack_from(">I4s", content, position)
        notes += name not in _PIXELS
        profiles += name == b"iCCP"
        if notes > MAX_NOTES:
            return f"more than {MAX_NOTES:,} chunks without pixels"
        if profiles > MAX_PROFILES:
            return f"more than {MAX_PROFILES} colour profiles"
        position += int(length) + 12  # with length, name and checksum
    return f"more than {MAX_PARTS:,} chunks"


def _excess_in_jpeg(content: bytes) -> str:
    """Up to the first scan; what comes behind it is the decoder's, which is no Python."""
    position, looked_at = len(_JPEG), 0
    while looked_at < MAX_NOTES:
        start = content.find(b"\xff", position)
        if start < 0 or start + 4 > len(content) or content[start + 1] == _START_OF_SCAN:
            return ""
        looked_at += 1
        position = _behind_segment(content, start)
    return f"more than {MAX_NOTES:,} segments"


def _first_scan(content: bytes) -> int | None:
    """Where the marker of the first scan is."""
    position = len(_JPEG)
    for _ in range(MAX_NOTES):
        start = content.find(b"\xff", position)
        if start < 0 or start + 4 > len(content):
            return None
        if content[start + 1] == _START_OF_SCAN:
            return start
        position = _behind_segment(content, start)
    return None


def _behind_segment(content: bytes, start: int) -> int:
    if content[start + 1] in (0x00, 0xFF):  # stuffing: Pillow looks at each byte of it
        return start + 1
    return start + 2 + int(struct.unpack_from(">H", content, start + 2)[0])


# --- images ---

EXTENSIONS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif", ".avifs"),
    "HEIF": (".heic", ".heif", ".hif"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}
"""The formats that are read, by content, and how their files are called, in lower case."""

MAX_PIXELS = 2 * 89_478_485
"""Beyond this Pillow opens nothing: 0.5 GB decoded."""

MAX_ASPECT_RATIO = 1000
"""A picture of 1×20000 pixels would become 256×5,120,000 when its shorter side is resized."""

_SCANS = 16
"""A progressive JPEG is gone over whole in every scan. Encoders make about 10; thousands fit
in a few megabytes, and would decode for minutes."""


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """Which images are opened."""

    formats: tuple[str, ...] = tuple(EXTENSIONS)
    """Accepted by content, whatever the file is called."""
    pixels: int = MAX_PIXELS
    """As decoded: a JPEG is decoded at a fraction of its size where that is enough."""
    jpeg_pixels: int = MAX_PIXELS
    """Of a JPEG's file, whatever fraction of them is decoded."""
    aspect_ratio: int = MAX_ASPECT_RATIO
    """Longer side to shorter."""
    file_bytes: int = 8 * MAX_PIXELS
    """Encoded. The largest picture takes four channels of two bytes without any compression."""
    frames: int | None = None
    """Pictures of an animation, of which the first is taken."""
    section: str = ""
    """Of the configuration, where `maximum_pixels` and `maximum_aspect_ratio` stand."""

    def check_shape(self, width: int, height: int) -> None:
        """Refuse what would exhaust the memory when its shorter side is resized.

        Raises:
            ImageError: too long and thin.
        """
        if max(width, height) > self.aspect_ratio * min(width, height):
            raise ImageError(
                f"{width}×{height} pixels; the longer side may be at most {self.aspect_ratio} "
                f"times the shorter{self._raise('maximum_aspect_ratio')}"
            )

    def check_pixels(self, width: int, height: int, *, decoded: tuple[int, int]) -> None:
        """Refuse what would exhaust the memory when it is decoded.

        Args:
            width: of the file.
            height: of the file.
            decoded: width and height of what will be decoded.

        Raises:
            ImageError: too many pixels.
        """
        pixels, most = decoded[0] * decoded[1], self.pixels
        if width * height > self.jpeg_pixels:
            pixels, most = width * height, self.jpeg_pixels
        if pixels > most:
            raise ImageError(
                f"{width}×{height} pixels; at most {most:,} are accepted"
                + self._raise("maximum_pixels")
            )

    def _raise(self, name: str) -> str:
        return f" ({self.section}.{name})" if self.section else ""


OWN_IMAGES = ImageLimits()
"""Of a person's own files: whatever can be opened. What of it a data set may hold is narrowed by
`data.maximum_pixels` and `data.maximum_aspect_ratio` where it is validated."""

REQUESTED_IMAGES = ImageLimits(
    formats=("JPEG", "PNG", "WEBP", "BMP"),
    pixels=25_000_000,
    jpeg_pixels=100_000_000,
    aspect_ratio=20,
    file_bytes=100 * 10**6,
    frames=1000,
)
"""Of what anybody may send to a server."""

REDUCED_MARGIN = 3
"""A JPEG decoded at a fraction of its size is still so many times as large as needed, so that
the antialiased resize afterwards hides it: on enlarged photographs, normalised pixels differ
by 0.003 in the mean and 0.07 at most (benchmarks/reduced_decoding.py); with 2, by 0.011 and
0.44."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of torchvision's pretrained weights."""

_JPEGS = ("JPEG", "MPO")
"""Pillow calls a JPEG with further pictures behind it, as many telephones write, an MPO."""

_HEIF_BRANDS = frozenset(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
)
"""Of the file type box: mif1 and msf1 may be AVIF, too, which Pillow tries first."""

_PHOTOMETRIC, _WHITE_IS_ZERO, _WHITE = 262, 0, np.uint16(65535)
"""TIFF's tag of what the numbers mean; Pillow heeds it up to 8 bits."""

_BROKEN = (
    OSError,
    EOFError,
    ValueError,
    SyntaxError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RuntimeError,
    struct.error,
    zlib.error,
)
"""What Pillow raises over damaged files, depending on which byte is wrong."""


_STORED_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}
"""Of a decoded pixel in Pillow's memory, by mode; 4 in all others."""

_WORKING_BYTES = {"JPEG": 0, "MPO": 0, "PNG": 0, "BMP": 1, "WEBP": 16}
"""Of a pixel, beside the decoded picture, while a decoder works (benchmarks/decoding_cost.py);
formats that are not named are counted with `_OTHER_WORKING_BYTES`."""

_WEBP_BYTES = 4 + _WORKING_BYTES["WEBP"]
_OTHER_WORKING_BYTES = 16
_COEFFICIENT_BYTES = 6
"""Of a pixel of a progressive JPEG: three colours of two bytes, kept until the last scan."""
_GREY_BYTES = 14
"""Of a pixel of 16 and 32 bits, which is scaled to 8."""
_BAND_PIXELS = 2**20
"""Of a transparent picture, laid on white at once."""
_MIN_BYTES = 4 * 2**20

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What sets an image upright, by its EXIF orientation."""

Reserve = Callable[[int], None]
"""Called before an image is decoded, with the bytes that this takes at most; may wait or refuse."""


class ImageError(UserError):
    """An image that cannot be used; the message says why."""


class MemoryShortageError(DarkroomError):
    """An image that may be whole, but cannot be decoded in the memory that there is."""


class Preprocessing(BaseModel):
    """What happens to a decoded image before the network sees it; stored in the bundle."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    resize_size: int = Field(ge=8, le=1536)
    """Length of the shorter side after resizing (bilinear, antialiased), in pixels."""
    image_size: int = Field(ge=8, le=1024)
    """Height and width of the centre crop, in pixels."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    reduced_decoding: bool = False
    """Whether JPEGs far larger than `resize_size` are decoded at a fraction of their size, as
    training now does; bundles that do not say so were trained otherwise."""


def decode(
    source: bytes | Path, *, limits: ImageLimits = OWN_IMAGES, shorter_side: int = 0
) -> Image.Image:
    """Decode an image to 8-bit RGB, upright.

    EXIF orientation is applied, alpha is laid on white, 16-bit grey is scaled to 8 bits,
    CMYK and palettes are converted; of an animation, it is the first picture.

    Args:
        shorter_side: that is enough, so that a far larger JPEG is decoded at a fraction of its
            size; 0: whole.

    Raises:
        ImageError: no image of an accepted format, truncated, or too large.
        MemoryShortageError: it cannot be decoded in the memory that there is.
    """
    with _opened(source, limits=limits, shorter_side=shorter_side) as (image, _):
        return upright_rgb(image)


@contextmanager
def open_image(
    source: bytes | Path, *, limits: ImageLimits = OWN_IMAGES, shorter_side: int = 0
) -> Iterator[tuple[Image.Image, tuple[int, int]]]:
    """Yield an image as its file has it, in its own mode and format, and the file's size.

    Args:
        shorter_side: as `decode`; the image is then smaller than its file says.

    Raises:
        ImageError: no image of an accepted format, truncated, or too large.
        MemoryShortageError: it cannot be decoded in the memory that there is.
    """
    with _opened(source, limits=limits, shorter_side=shorter_side) as opened:
        yield opened


@contextmanager
def _opened(
    source: bytes | Path,
    *,
    limits: ImageLimits,
    shorter_side: int = 0,
    reserve: Reserve = lambda needed: None,
) -> Iterator[tuple[Image.Image, tuple[int, int]]]:
    """A decoded image, and the size that its file says it has.

    Args:
        shorter_side: a JPEG that is far larger is decoded at a fraction of its size; 0: whole.
        reserve: told of the bytes before they are taken.
    """
    needed = _MIN_BYTES
    try:
        content = source if isinstance(source, bytes) else _read(source, limits=limits)
        if excess := excess_of_parts(content):
            raise ImageError(f"{excess}, which take too long to read")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if webp := webp_size(content):  # Pillow takes two pictures' memory to open one
                limits.check_shape(*webp)
                limits.check_pixels(*webp, decoded=webp)
                needed = webp[0] * webp[1] * _WEBP_BYTES + len(content) + _MIN_BYTES
                reserve(needed)
            stream = io.BytesIO(without_end_of_scan(content))
            with Image.open(stream, formats=_openers(content, limits=limits)) as image:
                size = image.size
                limits.check_shape(*size)
                _check_work(image, content=content, limits=limits)
                if shorter_side and image.format in _JPEGS and image.mode in ("RGB", "L"):
                    side = shorter_side * REDUCED_MARGIN
                    image.draft(None, (side, side))  # both sides stay at least as long
                limits.check_pixels(*size, decoded=image.size)
                needed = decoding_bytes(image, size=size) + len(content)
                if not webp:
                    reserve(needed)
                image.load()
                yield image, size
    except UnidentifiedImageError as error:
        raise ImageError(f"not an image in one of the formats {_named(limits)}") from error
    except Image.DecompressionBombError as error:
        most = min(limits.pixels, MAX_PIXELS)
        raise ImageError(f"more than the {most:,} pixels that are accepted at most") from error
    except (ImageError, MemoryShortageError):
        raise
    except MemoryError as error:
        raise _shortage(needed) from error
    except _BROKEN as error:
        if _is_short_of(needed):  # libraries call it by many names
            raise _shortage(needed) from error
        raise ImageError(f"broken image: {error}") from error


def decoding_bytes(image: Image.Image, *, size: tuple[int, int]) -> int:
    """Bytes that decoding an open image and turning it into upright RGB take at most.

    Args:
        size: what its file says; the image's own is smaller where a JPEG is reduced.
    """
    pixels, whole = image.width * image.height, size[0] * size[1]
    stored = _STORED_BYTES.get(image.mode, 4)
    decoder = _WORKING_BYTES.get(image.format or "", _OTHER_WORKING_BYTES)
    turned = 4
    is_rgb = image.mode == "RGB" and not image.has_transparency_data
    grey = _GREY_BYTES if image.mode.startswith(("I", "F")) else 0
    converted = 0 if is_rgb else grey or 4
    needed = pixels * (stored + max(decoder, converted + turned))
    if image.format in _JPEGS and image.info.get("progressive"):
        needed += whole * _COEFFICIENT_BYTES
    return needed + _MIN_BYTES


def _is_short_of(needed: int) -> bool:
    """Whether so many bytes cannot be had, now that what was decoded has been freed."""
    try:
        mmap.mmap(-1, needed).close()
    except (OSError, MemoryError):
        return True
    return False


def _shortage(needed: int) -> MemoryShortageError:
    return MemoryShortageError(
        f"not enough memory to decode the image, which takes about {needed / 2**20:.0f} MiB: "
        "try again once less runs, or allow more memory"
    )


def upright_rgb(image: Image.Image) -> Image.Image:
    """What a person sees of an open image: EXIF orientation applied, 8-bit RGB."""
    turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    rgb = to_rgb(image)
    return rgb if turn is None else rgb.transpose(turn)


def _read(path: Path, *, limits: ImageLimits) -> bytes:
    if path.stat().st_size > limits.file_bytes:
        raise ImageError(f"larger than {limits.file_bytes // 10**6} MB")
    return path.read_bytes()


def _named(limits: ImageLimits) -> str:
    return ", ".join("HEIC" if name == "HEIF" else name for name in limits.formats)


def _openers(content: bytes, *, limits: ImageLimits) -> tuple[str, ...]:
    """The formats that Pillow is to try.

    Raises:
        ImageError: a HEIC, and what reads it is not installed.
    """
    if not _is_heif(content) or "HEIF" not in limits.formats:
        return tuple(name for name in limits.formats if name != "HEIF")
    try:
        import pillow_heif
    except ImportError as error:
        raise ImageError(
            "a HEIC image, which only pillow-heif reads, and that is not installed: "
            "pip install 'darkroom[train]'"
        ) from error
    pillow_heif.register_heif_opener()
    return limits.formats


def _is_heif(content: bytes) -> bool:
    return content[4:8] == b"ftyp" and content[8:12] in _HEIF_BRANDS


def _check_work(image: Image.Image, *, content: bytes, limits: ImageLimits) -> None:
    """Refuse what is small and would still be worked on for long."""
    frames = 1 if limits.frames is None else getattr(image, "n_frames", 1)
    if limits.frames is not None and frames > limits.frames:
        raise ImageError(f"an animation of {frames} pictures; at most {limits.frames}")
    if image.format not in _JPEGS:
        return
    # The marker before each scan; within compressed data, FF is always followed by 00.
    scans = content.count(b"\xff\xda")
    width, height = image.size
    if scans * width * height > _SCANS * limits.pixels and scans > 1:
        raise ImageError(
            f"a JPEG of {width}×{height} pixels in {scans} scans, which takes too long to decode"
        )


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode as 8-bit RGB; transparency shows white. The image itself, if it is that already.

    Raises:
        ImageError: numbers of which nothing says which is white.
    """
    if image.mode.startswith(("I", "F")):
        return _scaled_to_8_bits(image)
    if image.mode == "La":  # Pillow converts it to nothing else
        image = image.convert("LA")
    if image.has_transparency_data:
        return _on_white(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _scaled_to_8_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits, as RGB: divided by 257, whatever the brightest pixel is.

    Pillow would clip it at 255.
    """
    # Pillow keeps 16 bits of a PGM in 32, scaled so that 65,535 is its white.
    if not image.mode.startswith("I;16") and not (image.mode == "I" and image.format == "PPM"):
        kind = "floating-point numbers" if image.mode == "F" else "whole numbers of 32 bits"
        raise ImageError(f"its pixels are {kind}, and nothing says which is white: save 8 or 16")
    grey = np.asarray(image).astype(np.uint16, copy=False)
    if isinstance(image, TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        grey = _WHITE - grey
    return Image.fromarray((grey // 257).astype(np.uint8)).convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    """Laid on white in bands: whole, it would take four copies of the picture at once."""
    width, height = image.size
    rows = max(1, _BAND_PIXELS // width)
    whole = Image.new("RGB", image.size)
    for top in range(0, height, rows):
        band = image.crop((0, top, width, min(top + rows, height))).convert("RGBA")
        white = Image.new("RGBA", band.size, "white")
        whole.paste(Image.alpha_composite(white, band).convert("RGB"), (0, top))
    return whole


def resize_shorter_side(image: Image.Image, size: int) -> Image.Image:
    """Resize so that the shorter side is `size` pixels; the longer is rounded down."""
    target = _resized(image.size, size)
    return image if target == image.size else image.resize(target, Image.Resampling.BILINEAR)


def _resized(original: tuple[int, int], size: int) -> tuple[int, int]:
    """The rounding is torchvision's Resize, so that its pretrained weights see what they know."""
    width, height = original
    if width <= height:
        return size, int(size * height / width)
    return int(size * width / height), size


def center_crop(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The middle `size`×`size` of an (H, W, 3) array with H, W >= size."""
    height, width = pixels.shape[:2]
    # torchvision's CenterCrop rounds half to even as Python does.
    top, left = round((height - size) / 2.0), round((width - size) / 2.0)
    return pixels[top : top + size, left : left + size]


def working_pixels(
    source: bytes | Path,
    *,
    resize_size: int,
    reduced_decoding: bool,
    limits: ImageLimits = OWN_IMAGES,
    reserve: Reserve = lambda needed: None,
) -> NDArray[np.uint8]:
    """The (H, W, 3) pixels after resizing and before any crop: what a cache can hold.

    Args:
        resize_size: length of the shorter side, in pixels.
        reduced_decoding: decode JPEGs that are far larger at a fraction of their size.
        reserve: told of the bytes that this takes, before they are taken.

    Raises:
        ImageError, MemoryShortageError: as `decode`.
    """
    side = resize_size if reduced_decoding else 0
    opened = _opened(source, limits=limits, shorter_side=side, reserve=reserve)
    with opened as (image, size):
        if image.size == size:
            return np.asarray(resize_shorter_side(upright_rgb(image), resize_size))
        # Sides that the fraction does not divide were rounded up: by less than a pixel, which
        # would be most of one once a side of 200 is resized to 40.
        factor = round(max(size) / max(image.size))
        box = (0, 0, size[0] / factor, size[1] / factor)
        target = _resized(size, resize_size)
        return np.asarray(upright_rgb(image.resize(target, Image.Resampling.BILINEAR, box=box)))


def normalise(
    pixels: NDArray[np.uint8], *, mean: tuple[float, ...], std: tuple[float, ...]
) -> NDArray[np.float32]:
    """(..., H, W, 3) bytes to (..., 3, H, W) floats, less the mean, over the deviation."""
    scale = np.float32(1) / (np.float32(255) * np.asarray(std, dtype=np.float32))
    offset = np.asarray(mean, dtype=np.float32) / np.asarray(std, dtype=np.float32)
    colours = np.moveaxis(pixels, -1, -3)
    values = np.empty(colours.shape, dtype=np.float32)
    # Plane by plane: broadcast over the three colours of each pixel it takes five times as long.
    for colour in range(len(scale)):
        plane = values[..., colour, :, :]
        np.multiply(colours[..., colour, :, :], scale[colour], out=plane)
        plane -= offset[colour]
    return values


def prepare(
    source: bytes | Path,
    preprocessing: Preprocessing,
    *,
    limits: ImageLimits = OWN_IMAGES,
    reserve: Reserve = lambda needed: None,
) -> NDArray[np.float32]:
    """An encoded image to the (3, S, S) array that the network sees.

    Args:
        reserve: told of the bytes that this takes, before they are taken.

    Raises:
        ImageError, MemoryShortageError: as `decode`.
    """
    pixels = working_pixels(
        source,
        resize_size=preprocessing.resize_size,
        reduced_decoding=preprocessing.reduced_decoding,
        limits=limits,
        reserve=reserve,
    )
    cropped = center_crop(pixels, preprocessing.image_size)
    return normalise(cropped, mean=preprocessing.mean, std=preprocessing.std)


def as_requested(content: bytes, preprocessing: Preprocessing, *, largest_bytes: int) -> bytes:
    """What to send to a server, so that it sees what `prepare` makes of an image.

    That are the image's own bytes where a server opens them. In place of others it is a PNG of
    the pixels that are left after resizing, which the server has nothing to resize of.

    Raises:
        ImageError, MemoryShortageError: as `decode`.
    """
    if len(content) <= largest_bytes and is_accepted(content, limits=REQUESTED_IMAGES):
        return content
    pixels = working_pixels(
        content,
        resize_size=preprocessing.resize_size,
        reduced_decoding=preprocessing.reduced_decoding,
    )
    return as_png(Image.fromarray(pixels))


def as_png(image: Image.Image) -> bytes:
    """An image encoded without loss."""
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def is_accepted(content: bytes, *, limits: ImageLimits) -> bool:
    """Whether an image is opened, by its head alone; what lies behind it may be broken."""
    try:
        with Image.open(io.BytesIO(content), formats=limits.formats) as image:
            limits.check_shape(*image.size)
            limits.check_pixels(*image.size, decoded=image.size)
    except (ImageError, Image.DecompressionBombError, *_BROKEN):
        return False
    return True
