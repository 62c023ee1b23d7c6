"""The images and labels of a split as training consumes them."""

import hashlib
import os
import shutil
import time
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray

from darkroom import images
from darkroom.base.concurrency import map_in_order
from darkroom.base.errors import UserError
from darkroom.base.files import atomic_path, full_disk_explained, sha256_of
from darkroom.base.progress import SILENT, Progress, Task
from darkroom.config import Hyperparameters
from darkroom.config.sections import SPLITS, Split
from darkroom.data.dataset import Dataset, ImageRecord
from darkroom.images import Preprocessing
from darkroom.training.distributed import ProcessGroup

# --- pixel cache ---
# Images decoded once, at working size, in one memory-mapped file.
#
# Training reads every image many times, and decoding a photograph takes several times as
# long as all else that happens to it before the network. A cache is a folder:
#
# pixels      the images' (H, W, 3) bytes one after the other
# shapes.npy  (N, 2) heights and widths
# checks.npy  CRC-32 of the shapes and of each block of the pixels
#
# Its name is a digest of everything that its bytes depend on, so it is never stale: the files
# that are decoded into it are compared with the data set's hashes. Before it is used it is
# compared with its checks, and made again where a byte differs.

_PIXELS_FILE = "pixels"
_SHAPES_FILE = "shapes.npy"
_CHECKS_FILE = "checks.npy"
_BLOCK_BYTES = 1 << 24
_DECODED_AHEAD = 256
_PROBLEMS_SHOWN = 20
_THREADS = min(4, os.cpu_count() or 1)

_found_whole: set[tuple[str, int, int, int]] = set()
"""Caches that this process has compared with their checks: path, inode, size and ctime of the
pixels. A search opens the same cache once for each trial."""


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
    dataset: Dataset,
    *,
    split: Split,
    preprocessing: Preprocessing,
    folder: Path,
    progress: Progress = SILENT,
) -> PixelCache:
    """The decoded images of a split, from `folder` or decoded into it now.

    Args:
        dataset: the labelled files.
        split: which of them.
        preprocessing: says how they are decoded and resized.
        folder: holds the caches of all data sets and sizes.
        progress: counts images while decoding.

    Raises:
        UserError: images that cannot be decoded, or that are not what was ingested, all of them.
        DarkroomError: the disk is full.
    """
    records = dataset.split(split)
    path = folder / _digest(records, preprocessing=preprocessing)
    if path.exists() and not _is_whole(path):
        progress.message(f"The decoded {split} images in {path} are damaged, and are made again.")
        shutil.rmtree(path, ignore_errors=True)
    if not path.exists():
        with (
            progress.task(f"decode {split} images", total=len(records)) as task,
            full_disk_explained(folder),
            atomic_path(path) as temporary,
        ):
            decoded = _decode_all(dataset, records, preprocessing=preprocessing)
            _write(temporary, decoded, task=task)
    return _mapped(path)


def discard_pixel_caches(
    dataset: Dataset, *, preprocessing: Preprocessing, folder: Path, older_than: float
) -> None:
    """Remove a data set's caches, so that its images are decoded anew.

    Args:
        older_than: seconds since the epoch; what was made later stays.
    """
    for split in SPLITS:
        path = folder / _digest(dataset.split(split), preprocessing=preprocessing)
        if path.exists() and path.stat().st_mtime < older_than:
            shutil.rmtree(path, ignore_errors=True)


def _write(folder: Path, decoded: Iterator[NDArray[np.uint8]], *, task: Task) -> None:
    folder.mkdir()
    shapes = []
    checks = _Checks()
    with (folder / _PIXELS_FILE).open("wb") as file:
        for pixels in decoded:
            content = pixels.tobytes()
            file.write(content)
            checks.add(content)
            shapes.append(pixels.shape[:2])
            task.advance()
        file.flush()
        os.fsync(file.fileno())
    np.save(folder / _SHAPES_FILE, np.asarray(shapes, dtype=np.int64))
    of_shapes = zlib.crc32((folder / _SHAPES_FILE).read_bytes())
    np.save(folder / _CHECKS_FILE, np.asarray([of_shapes, *checks.blocks()], dtype=np.uint32))


@dataclass
class _Checks:
    """CRC-32 of the blocks of a stream that comes in pieces of any size."""

    _done: list[int] = field(default_factory=list)
    _value: int = 0
    _filled: int = 0

    def add(self, content: bytes) -> None:
        """The next piece."""
        view = memoryview(content)
        while view:
            piece = view[: _BLOCK_BYTES - self._filled]
            self._value = zlib.crc32(piece, self._value)
            self._filled += len(piece)
            view = view[len(piece) :]
            if self._filled == _BLOCK_BYTES:
                self._done.append(self._value)
                self._value = self._filled = 0

    def blocks(self) -> list[int]:
        """One for each block; the last may be shorter."""
        return [*self._done, self._value] if self._filled else self._done


@dataclass(frozen=True)
class _Unusable:
    """An image that cannot be decoded into the cache."""

    problem: str
    is_changed: bool = False


def _decode_all(
    dataset: Dataset, records: Sequence[ImageRecord], *, preprocessing: Preprocessing
) -> Iterator[NDArray[np.uint8]]:
    """Decode in order, on all cores: Pillow lets other threads run meanwhile."""
    unusable: list[_Unusable] = []
    with ThreadPoolExecutor(thread_name_prefix="decode") as pool:
        decode = partial(_decode, dataset=dataset, preprocessing=preprocessing)
        for start in range(0, len(records), _DECODED_AHEAD):
            for result in pool.map(decode, records[start : start + _DECODED_AHEAD]):
                if isinstance(result, _Unusable):
                    unusable.append(result)
                else:
                    yield result
    if unusable:
        raise UserError(_problems(unusable))


def _decode(
    record: ImageRecord, *, dataset: Dataset, preprocessing: Preprocessing
) -> NDArray[np.uint8] | _Unusable:
    """The working pixels, or what is wrong with the file."""
    file = dataset.file(record)
    try:
        content = file.read_bytes()
    except OSError as error:
        problem = f"{str(file)!r} cannot be read: {error.strerror}"
        return _Unusable(problem, is_changed=isinstance(error, FileNotFoundError))
    if hashlib.sha256(content).hexdigest() != record.sha256:
        return _Unusable(f"{str(file)!r} is not the image that was ingested", is_changed=True)
    try:
        return images.working_pixels(
            content,
            resize_size=preprocessing.resize_size,
            reduced_decoding=preprocessing.reduced_decoding,
        )
    except images.ImageError as error:
        return _Unusable(f"{str(file)!r} cannot be decoded: {error}")


def _problems(unusable: Sequence[_Unusable]) -> list[str]:
    """Those that are shown, how many more there are, and what to do about each kind."""
    more = len(unusable) - _PROBLEMS_SHOWN
    left = [f"… and {more:,} more"] if more > 0 else []
    advice = []
    if any(not image.is_changed for image in unusable):
        advice.append("remove or replace these files, or set data.on_undecodable to 'leave_out'")
    if any(image.is_changed for image in unusable):
        advice.append(
            "files changed or went after they had been ingested: run the same command again, "
            "with --no-cache, to have them ingested as they are now"
        )
    return [*(image.problem for image in unusable[:_PROBLEMS_SHOWN]), *left, *advice]


def _digest(records: Sequence[ImageRecord], *, preprocessing: Preprocessing) -> str:
    """Of the images' content and of what decodes and resizes them."""
    decoder = sha256_of(Path(images.__file__))
    decoders = f"{PIL.__version__} {_version_of('pillow-heif')}"
    how = f"{preprocessing.resize_size} {preprocessing.reduced_decoding}"
    digest = hashlib.sha256(f"{how} {decoders} {decoder}\n".encode())
    for record in records:
        digest.update(record.sha256.encode())
    return digest.hexdigest()[:32]


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _is_whole(path: Path) -> bool:
    """Whether a cache is there with every byte as it was written.

    A power cut may have lost some, a disk or a hand changed others.
    """
    try:
        checks = np.load(path / _CHECKS_FILE, allow_pickle=False).tolist()
        shapes_bytes = (path / _SHAPES_FILE).read_bytes()
        shapes = np.load(path / _SHAPES_FILE, allow_pickle=False)
        status = (path / _PIXELS_FILE).stat()
    except (OSError, ValueError, EOFError):
        return False
    size = status.st_size
    if size != shapes.prod(axis=1).sum() * 3 or [zlib.crc32(shapes_bytes)] != checks[:1]:
        return False
    state = (str(path), status.st_ino, size, status.st_ctime_ns)
    if state not in _found_whole:
        starts = range(0, size, _BLOCK_BYTES)
        check = partial(_checksum, path / _PIXELS_FILE)
        if list(map_in_order(check, starts, threads=_THREADS)) != checks[1:]:
            return False
        _found_whole.add(state)
    return True


def _checksum(path: Path, start: int) -> int:
    with path.open("rb") as file:
        file.seek(start)
        return zlib.crc32(file.read(_BLOCK_BYTES))


def _mapped(path: Path) -> PixelCache:
    shapes = np.load(path / _SHAPES_FILE, allow_pickle=False)
    lengths = shapes.prod(axis=1) * 3
    # Copy-on-write: torch warns about memory that it may not write, though nobody does.
    pixels = np.memmap(path / _PIXELS_FILE, dtype=np.uint8, mode="c")
    return PixelCache(pixels=pixels, shapes=shapes, offsets=np.cumsum(lengths) - lengths)


# --- examples ---


@dataclass(frozen=True)
class Examples:
    """One split, decoded."""

    cache: PixelCache
    labels: NDArray[np.int64]
    """(N,) class indices, in the cache's order."""
    seconds: float
    """Spent on opening the cache: next to nothing, or the decoding of every image."""


def preprocessing_of(hyperparameters: Hyperparameters) -> Preprocessing:
    """What happens to an image before the network sees it.

    Made once, before a training; from then on the training, its cache, the bundle and whoever
    serves it take it from one another.
    """
    return Preprocessing(
        resize_size=hyperparameters.working_size,
        image_size=hyperparameters.image_size,
        reduced_decoding=True,
    )


def load_examples(
    dataset: Dataset,
    *,
    split: Split,
    preprocessing: Preprocessing,
    folder: Path,
    group: ProcessGroup,
    progress: Progress,
) -> Examples:
    """Open a split's pixel cache in `folder`; a host's first process builds it where missing.

    Args:
        preprocessing: how the images are decoded and resized.
        folder: holds the caches of all data sets and sizes.
        group: the processes of this training, that find what their host's first one has built.
        progress: counts images while they are decoded.

    Raises:
        UserError: images that cannot be decoded, or that are not what was ingested.
        DarkroomError: the disk is full.
    """
    started = time.perf_counter()
    with group.first_before_the_others():
        cache = open_pixel_cache(
            dataset, split=split, preprocessing=preprocessing, folder=folder, progress=progress
        )
    return Examples(
        cache=cache,
        labels=class_indices(dataset, split=split),
        seconds=time.perf_counter() - started,
    )


def class_indices(dataset: Dataset, *, split: Split) -> NDArray[np.int64]:
    """(N,) class indices of a split, in manifest order."""
    index = {name: number for number, name in enumerate(dataset.classes)}
    return np.asarray([index[record.label] for record in dataset.split(split)], dtype=np.int64)


def check_splits(dataset: Dataset) -> None:
    """Refuse data that nothing can be learned from.

    Raises:
        UserError: fewer than two classes, or no images to train on or to validate with.
    """
    problems = []
    if len(dataset.classes) < 2:
        problems.append(
            f"{dataset.source!r} has {len(dataset.classes)} class: a classifier needs two or more"
        )
    if not dataset.split("train"):
        problems.append(f"{dataset.source!r} has no training images")
    if not dataset.split("validation"):
        problems.append(
            f"{dataset.source!r} has no validation images, by which the best epoch is chosen: "
            "add a split, or set data.validation_fraction above 0"
        )
    if problems:
        raise UserError(problems)
