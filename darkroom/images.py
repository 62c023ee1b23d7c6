"""Decoding and preprocessing: the one definition, for training, evaluation and serving.

Pillow and numpy only, so that a server needs no torch. Everything here is pure.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field

from darkroom.errors import UserError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
"""Accepted by content, whatever the file is called."""

EXTENSIONS = {"JPEG": (".jpg", ".jpeg"), "PNG": (".png",), "WEBP": (".webp",), "BMP": (".bmp",)}

MAXIMUM_PIXELS = 25_000_000
"""Pillow itself only warns below 179 million pixels: 0.5 GB decoded."""

MAXIMUM_ASPECT_RATIO = 20
"""A picture of 1×20000 pixels would become 256×5,120,000 when its shorter side is resized."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of torchvision's pretrained weights."""


class ImageError(UserError):
    """An image that cannot be used; the message says why."""


class Preprocessing(BaseModel):
    """What happens to a decoded image before the network sees it; stored in the bundle."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    resize_size: int = Field(ge=8, le=1536)
    """Length of the shorter side after resizing (bilinear, antialiased), in pixels."""
    image_size: int = Field(ge=8, le=1024)
    """Height and width of the centre crop, in pixels."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD


def decode(source: bytes | Path) -> Image.Image:
    """Decode an image to 8-bit RGB, upright.

    EXIF orientation is applied, alpha is laid on white, 16-bit grey is scaled to 8 bits,
    CMYK and palettes are converted.

    Raises:
        ImageError: no image of an accepted format, truncated, or too large.
    """
    with open_image(source) as image:
        return upright_rgb(image)


@contextmanager
def open_image(source: bytes | Path) -> Iterator[Image.Image]:
    """Yield an image decoded whole, as its file has it: its own mode, size and format.

    Raises:
        ImageError: no image of an accepted format, truncated, or too large.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            stream = io.BytesIO(source) if isinstance(source, bytes) else source
            with Image.open(stream, formats=FORMATS) as image:
                check_size(*image.size)
                image.load()
                yield image
    except UnidentifiedImageError as error:
        raise ImageError(f"not an image in one of the formats {', '.join(FORMATS)}") from error
    except ImageError:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ImageError(f"broken image: {error}") from error


def upright_rgb(image: Image.Image) -> Image.Image:
    """What a person sees of an open image: EXIF orientation applied, 8-bit RGB."""
    return to_rgb(ImageOps.exif_transpose(image))


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


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to 8-bit RGB; transparency shows white."""
    if image.mode.startswith(("I", "F")):
        grey = np.asarray(image, dtype=np.float64)
        # Pillow would clip 16-bit values at 255 instead of scaling them.
        scale = 257.0 if grey.max(initial=0) > 255 else 1.0
        return Image.fromarray((grey / scale).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def resize_shorter_side(image: Image.Image, size: int) -> Image.Image:
    """Resize so that the shorter side is `size` pixels; the longer is rounded down.

    The rounding is torchvision's Resize, so that its pretrained weights see what they know.
    """
    width, height = image.size
    if width <= height:
        target = (size, int(size * height / width))
    else:
        target = (int(size * width / height), size)
    return image if target == image.size else image.resize(target, Image.Resampling.BILINEAR)


def center_crop(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The middle `size`×`size` of an (H, W, 3) array with H, W >= size."""
    height, width = pixels.shape[:2]
    # torchvision's CenterCrop rounds half to even as Python does.
    top, left = round((height - size) / 2.0), round((width - size) / 2.0)
    return pixels[top : top + size, left : left + size]


def working_pixels(image: Image.Image, *, resize_size: int) -> NDArray[np.uint8]:
    """The (H, W, 3) pixels after resizing and before any crop: what a cache can hold."""
    return np.asarray(resize_shorter_side(image, resize_size))


def normalise(
    pixels: NDArray[np.uint8], *, mean: tuple[float, ...], std: tuple[float, ...]
) -> NDArray[np.float32]:
    """(..., H, W, 3) bytes to (..., 3, H, W) floats, less the mean, over the deviation."""
    scale = np.float32(1) / (np.float32(255) * np.asarray(std, dtype=np.float32))
    offset = np.asarray(mean, dtype=np.float32) / np.asarray(std, dtype=np.float32)
    values = pixels.astype(np.float32) * scale - offset
    return np.ascontiguousarray(np.moveaxis(values, -1, -3))


def preprocess(image: Image.Image, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """An RGB image to the (3, S, S) array that the network sees."""
    pixels = working_pixels(image, resize_size=preprocessing.resize_size)
    cropped = center_crop(pixels, preprocessing.image_size)
    return normalise(cropped, mean=preprocessing.mean, std=preprocessing.std)
