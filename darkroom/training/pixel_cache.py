"""Images decoded once, at working size, in one memory-mapped file.

Training reads every image many times, and decoding a photograph takes several times as
long as all else that happens to it before the network. A cache is a folder:

    pixels      the images' (H, W, 3) bytes one after the other
    shapes.npy  (N, 2) heights and widths

Its name is a digest of everything that its bytes depend on, so it is never stale.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray

from darkroom import images
from darkroom.dataset import Dataset, ImageRecord, Split
from darkroom.errors import UserError
from darkroom.files import atomic_path, sha256_of
from darkroom.progress import SILENT, Progress, Task

_PIXELS_FILE = "pixels"
_SHAPES_FILE = "shapes.npy"
_DECODED_AHEAD = 256
_PROBLEMS_SHOWN = 20


@dataclass(frozen=True)
class PixelCache:
    """The decoded images of one split, in manifest order."""

    pixels: NDArray[np.uint8]
    """All images' bytes, flat; mapped, so that only what is read takes memory."""
    shapes: NDArray[np.int64]
    """(N, 2) heights and widths."""
    offsets: NDArray[np.int64]
    """(N,) where each image starts in `pixels`."""

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """One image, (H, W, 3), its shorter side as long as the resize size."""
        height, width = self.shapes[index].tolist()
        start = int(self.offsets[index])
        return self.pixels[start : start + height * width * 3].reshape(height, width, 3)


def open_pixel_cache(
    dataset: Dataset, *, split: Split, resize_size: int, folder: Path, progress: Progress = SILENT
) -> PixelCache:
    """The decoded images of a split, from `folder` or decoded into it now.

    Args:
        dataset: the labelled files.
        split: which of them.
        resize_size: length of the shorter side, in pixels.
        folder: holds the caches of all data sets and sizes.
        progress: counts images while decoding.

    Raises:
        UserError: images that cannot be decoded, all of them.
        OSError: the disk is full.
    """
    records = dataset.split(split)
    path = folder / _digest(records, resize_size=resize_size)
    if not _is_whole(path):
        shutil.rmtree(path, ignore_errors=True)
        files = [dataset.file(record) for record in records]
        with (
            progress.task(f"decode {split} images", total=len(files)) as task,
            atomic_path(path) as temporary,
        ):
            _write(temporary, _decode_all(files, resize_size=resize_size), task=task)
    return _mapped(path)


def _write(folder: Path, decoded: Iterator[NDArray[np.uint8]], *, task: Task) -> None:
    folder.mkdir()
    shapes = []
    with (folder / _PIXELS_FILE).open("wb") as file:
        for pixels in decoded:
            file.write(pixels.tobytes())
            shapes.append(pixels.shape[:2])
            task.advance()
        file.flush()
        os.fsync(file.fileno())
    np.save(folder / _SHAPES_FILE, np.asarray(shapes, dtype=np.int64))


def _decode_all(files: Sequence[Path], *, resize_size: int) -> Iterator[NDArray[np.uint8]]:
    """Decode in order, on all cores: Pillow lets other threads run meanwhile."""
    problems: list[str] = []
    with ThreadPoolExecutor(thread_name_prefix="decode") as pool:
        decode = partial(_decode, resize_size=resize_size)
        for start in range(0, len(files), _DECODED_AHEAD):
            for result in pool.map(decode, files[start : start + _DECODED_AHEAD]):
                if isinstance(result, str):
                    problems.append(result)
                else:
                    yield result
    if problems:
        raise UserError(_shortened(problems))


def _decode(file: Path, *, resize_size: int) -> NDArray[np.uint8] | str:
    """The working pixels, or what is wrong with the file."""
    try:
        return images.working_pixels(file, resize_size=resize_size, reduced_decoding=True)
    except images.ImageError as error:
        return f"{str(file)!r} cannot be decoded: {error}"


def _shortened(problems: list[str]) -> list[str]:
    more = len(problems) - _PROBLEMS_SHOWN
    advice = "remove or replace these files, or set data.on_undecodable to 'leave_out'"
    left = [f"… and {more:,} more"] if more > 0 else []
    return [*problems[:_PROBLEMS_SHOWN], *left, advice]


def _digest(records: Sequence[ImageRecord], *, resize_size: int) -> str:
    """Of the images' content and of what decodes and resizes them."""
    decoder = sha256_of(Path(images.__file__))
    digest = hashlib.sha256(f"{resize_size} {PIL.__version__} {decoder}\n".encode())
    for record in records:
        digest.update(record.sha256.encode())
    return digest.hexdigest()[:32]


def _is_whole(path: Path) -> bool:
    """Whether a cache is there with every byte; a power cut may have lost some."""
    try:
        shapes = np.load(path / _SHAPES_FILE, allow_pickle=False)
        size = (path / _PIXELS_FILE).stat().st_size
    except (OSError, ValueError, EOFError):
        return False
    return bool(size == shapes.prod(axis=1).sum() * 3)


def _mapped(path: Path) -> PixelCache:
    shapes = np.load(path / _SHAPES_FILE, allow_pickle=False)
    lengths = shapes.prod(axis=1) * 3
    # Copy-on-write: torch warns about memory that it may not write, though nobody does.
    pixels = np.memmap(path / _PIXELS_FILE, dtype=np.uint8, mode="c")
    return PixelCache(pixels=pixels, shapes=shapes, offsets=np.cumsum(lengths) - lengths)
