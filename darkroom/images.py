"""Decoding and preprocessing: the one definition, for training, evaluation and serving.

Pillow and numpy only, so that a server needs no torch. Everything here is pure.
"""

import io
import mmap
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field

from darkroom.errors import DarkroomError, UserError
from darkroom.image_parts import excess_of_parts, webp_size, without_end_of_scan

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
"""Accepted by content, whatever the file is called."""

EXTENSIONS = {"JPEG": (".jpg", ".jpeg"), "PNG": (".png",), "WEBP": (".webp",), "BMP": (".bmp",)}

MAXIMUM_PIXELS = 25_000_000
"""Pillow itself only warns below 179 million pixels: 0.5 GB decoded."""

MAXIMUM_FILE_BYTES = 100 * 10**6
"""Of an encoded image: the largest allowed one takes 75 MB without any compression."""

MAXIMUM_SCANNED_PIXELS = 16 * MAXIMUM_PIXELS
"""Of a progressive JPEG, which goes over all its pixels in every scan. Encoders make about 10
scans; thousands fit in a few megabytes, and would decode for minutes."""

MAXIMUM_FRAMES = 1000
"""Of an animation, whose first picture is taken."""

REDUCED_MARGIN = 3
"""A JPEG decoded at a fraction of its size is still so many times as large as needed, so that
the antialiased resize afterwards hides it: on enlarged photographs, normalised pixels differ
by 0.003 in the mean and 0.07 at most (benchmarks/reduced_decoding.py); with 2, by 0.011 and
0.44."""

MAXIMUM_ASPECT_RATIO = 20
"""A picture of 1×20000 pixels would become 256×5,120,000 when its shorter side is resized."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of torchvision's pretrained weights."""

_JPEGS = ("JPEG", "MPO")
"""Pillow calls a JPEG with further pictures behind it, as many telephones write, an MPO."""

_BROKEN = (
    OSError,
    EOFError,
    ValueError,
    SyntaxError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
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
_LEAST_BYTES = 4 * 2**20

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


def decode(source: bytes | Path) -> Image.Image:
    """Decode an image to 8-bit RGB, upright.

    EXIF orientation is applied, alpha is laid on white, 16-bit grey is scaled to 8 bits,
    CMYK and palettes are converted; of an animation, it is the first picture.

    Raises:
        ImageError: no image of an accepted format, truncated, or too large.
        MemoryShortageError: it cannot be decoded in the memory that there is.
    """
    with open_image(source) as image:
        return upright_rgb(image)


@contextmanager
def open_image(source: bytes | Path) -> Iterator[Image.Image]:
    """Yield an image decoded whole, as its file has it: its own mode, size and format.

    Raises:
        ImageError: no image of an accepted format, truncated, or too large.
        MemoryShortageError: it cannot be decoded in the memory that there is.
    """
    with _opened(source) as (image, _):
        yield image


@contextmanager
def _opened(
    source: bytes | Path, *, shorter_side: int = 0, reserve: Reserve = lambda needed: None
) -> Iterator[tuple[Image.Image, tuple[int, int]]]:
    """A decoded image, and the size that its file says it has.

    Args:
        shorter_side: a JPEG that is far larger is decoded at a fraction of its size; 0: whole.
        reserve: told of the bytes before they are taken.
    """
    needed = _LEAST_BYTES
    try:
        content = source if isinstance(source, bytes) else _read(source)
        if excess := excess_of_parts(content):
            raise ImageError(f"{excess}, which take too long to read")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if webp := webp_size(content):  # Pillow takes two pictures' memory to open one
                check_size(*webp)
                needed = webp[0] * webp[1] * _WEBP_BYTES + len(content) + _LEAST_BYTES
                reserve(needed)
            stream = io.BytesIO(without_end_of_scan(content))
            with Image.open(stream, formats=FORMATS) as image:
                size = image.size
                check_size(*size)
                _check_work(image, content=content)
                if shorter_side and image.format in _JPEGS and image.mode in ("RGB", "L"):
                    side = shorter_side * REDUCED_MARGIN
                    image.draft(None, (side, side))  # both sides stay at least as long
                needed = decoding_bytes(image, size=size) + len(content)
                if not webp:
                    reserve(needed)
                image.load()
                yield image, size
    except UnidentifiedImageError as error:
        raise ImageError(f"not an image in one of the formats {', '.join(FORMATS)}") from error
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
    return needed + _LEAST_BYTES


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


def check_size(width: int, height: int) -> None:
    """Refuse sizes whose decoding or resizing would exhaust the memory.

    Raises:
        ImageError: too many pixels, or too long and thin.
    """
    if width * height > MAXIMUM_PIXELS:
        raise ImageError(f"{width}×{height} pixels; at most {MAXIMUM_PIXELS:,} are accepted")
    if max(width, height) > MAXIMUM_ASPECT_RATIO * min(width, height):
        raise ImageError(
            f"{width}×{height} pixels; the longer side may be at most "
            f"{MAXIMUM_ASPECT_RATIO} times the shorter"
        )


def _read(path: Path) -> bytes:
    if path.stat().st_size > MAXIMUM_FILE_BYTES:
        raise ImageError(f"larger than {MAXIMUM_FILE_BYTES // 10**6} MB")
    return path.read_bytes()


def _check_work(image: Image.Image, *, content: bytes) -> None:
    """Refuse what is small and would still be worked on for long."""
    frames = getattr(image, "n_frames", 1)
    if frames > MAXIMUM_FRAMES:
        raise ImageError(f"an animation of {frames} pictures; at most {MAXIMUM_FRAMES}")
    if image.format not in _JPEGS:
        return
    # The marker before each scan; within compressed data, FF is always followed by 00.
    scans = content.count(b"\xff\xda")
    width, height = image.size
    if scans * width * height > MAXIMUM_SCANNED_PIXELS and scans > 1:
        raise ImageError(
            f"a JPEG of {width}×{height} pixels in {scans} scans, which takes too long to decode"
        )


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode as 8-bit RGB; transparency shows white. The image itself, if it is that already."""
    if image.mode.startswith(("I", "F")):
        grey = np.asarray(image)
        # Pillow would clip 16-bit values at 255 instead of scaling them.
        scale = 257 if grey.max(initial=0) > 255 else 1
        return Image.fromarray((grey // scale).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        return _on_white(image)
    return image if image.mode == "RGB" else image.convert("RGB")


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
    with _opened(source, shorter_side=side, reserve=reserve) as (image, size):
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
    source: bytes | Path, preprocessing: Preprocessing, *, reserve: Reserve = lambda needed: None
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
        reserve=reserve,
    )
    cropped = center_crop(pixels, preprocessing.image_size)
    return normalise(cropped, mean=preprocessing.mean, std=preprocessing.std)
