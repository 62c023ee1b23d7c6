"""NumPy's .npy format, read without ever unpickling and without trusting the header's sizes."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from darkroom.engines.protocol import Floats
from darkroom.serving.limits import MAXIMUM_IMAGES, refused, too_many_images

_LONGEST_HEADER = 4096
_READERS: dict[tuple[int, int], Callable[..., tuple[tuple[int, ...], bool, np.dtype[Any]]]] = {
    (1, 0): npy_format.read_array_header_1_0,
    (2, 0): npy_format.read_array_header_2_0,
}
_TYPES = ("float32", "float64", "float16")

_LARGEST_VALUE = 1000.0
"""Normalised pixels lie within ±3. What makes a network overflow would fail the requests of
others in the same batch."""


def read_images(body: bytes, *, image_size: int) -> Floats:
    """Preprocessed images of the body, (N, 3, S, S) or one (3, S, S), as float32.

    Raises:
        HTTPException: 400 where it is anything else, 413 for too many images.
    """
    array = _read(body)
    wanted = (3, image_size, image_size)
    if array.ndim not in (3, 4) or array.shape[-3:] != wanted:
        raise refused(
            f"the array's shape is {array.shape}; accepted are (N, 3, {image_size}, "
            f"{image_size}) and {wanted}: preprocessed images"
        )
    if array.ndim == 4 and not 1 <= len(array) <= MAXIMUM_IMAGES:
        raise too_many_images(len(array)) if len(array) else refused("the array holds no image")
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is refused
        images = np.ascontiguousarray(array, dtype=np.float32)
    if not np.isfinite(images).all():
        raise refused("the array holds values that are not finite")
    if np.abs(images).max() > _LARGEST_VALUE:
        raise refused(f"the array holds values beyond ±{_LARGEST_VALUE:g}, which no pixel has")
    return images


def write(array: Floats) -> bytes:
    """The array as a .npy file."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def _read(body: bytes) -> NDArray[np.floating]:
    stream = io.BytesIO(body)
    try:
        version = npy_format.read_magic(stream)  # type: ignore[no-untyped-call]
        shape, is_fortran, dtype = _READERS[version](stream, max_header_size=_LONGEST_HEADER)
    except Exception as error:  # NumPy parses the header as Python: whatever that may raise
        raise refused("the body is no .npy file of NumPy's format 1.0 or 2.0") from error
    if dtype.newbyteorder("=").name not in _TYPES:
        raise refused(f"the array's type is {dtype}; accepted are {', '.join(_TYPES)}")
    content = body[stream.tell() :]
    count = 1
    for length in shape:  # Python's integers: NumPy's would overflow
        count *= length
    if any(isinstance(length, bool) for length in shape):  # True is an int to NumPy's header
        raise refused(f"the array's header says the shape {shape}; lengths are whole numbers")
    if min(shape, default=0) < 0 or count * dtype.itemsize != len(content):
        raise refused(
            f"the array's header says {shape} of {dtype}, but {len(content):,} bytes follow"
        )
    flat: NDArray[np.floating] = np.frombuffer(content, dtype=dtype)
    return flat.reshape(shape, order="F" if is_fortran else "C")
