"""Decoding every image of a data set and noting what it is."""

import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from darkroom.base.progress import SILENT, Progress
from darkroom.data.dataset import Dataset
from darkroom.images import OWN_IMAGES, ImageError, ImageLimits, open_image, upright_rgb

# --- perceptual hash ---
# Telling that two pictures look the same, whatever their size and compression.
#
# The hash is pHash: 32×32 grey pixels, discrete cosine transform, the 8×8 lowest frequencies,
# one bit each for above their median. Zauner, "Implementation and Benchmarking of Perceptual
# Image Hash Functions", 2010, section 3.2.1; https://www.phash.org/docs/pubs/thesis_zauner.pdf

SIDE = 32
"""Pixels of the grey picture behind the hash; smaller pictures do not hold the detail."""

MIN_CONTRAST = 5.0
"""Standard deviation, of 255, below which a picture is too even to be told from others."""

_BITS = 64
_LOW_FREQUENCIES = 8
_MAX_NEIGHBOURS = 1000
"""Pictures of one band to which a picture is compared: keeps the search linear."""


def grey_square(image: Image.Image) -> NDArray[np.float32]:
    """The (32, 32) brightness of a picture, 0 to 255, without its shape and colours."""
    square = image.convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    return np.asarray(square, dtype=np.float32)


def perceptual_hash(image: Image.Image) -> int | None:
    """64 bits that hardly change when a picture is resized or compressed again.

    None where the picture is too small or too even: its hash would say nothing.
    """
    if min(image.size) < SIDE:
        return None
    square = grey_square(image)
    if square.std() < MIN_CONTRAST:
        return None
    frequencies = (_cosines() @ square @ _cosines().T).ravel()
    bits = frequencies > np.median(frequencies)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def near_pairs(
    hashes: NDArray[np.uint64], *, distance: int
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.uint8]]]:
    """Positions of hashes that differ in at most `distance` bits, and in how many.

    The 64 bits are cut into `distance` + 1 bands. Hashes within the distance agree on at least
    one band, so only hashes that share a band are compared. Where very many share one, each
    is compared with 1,000 of them. A pair may come more than once.

    Args:
        hashes: (N,) 64-bit hashes.

    Yields:
        positions of the one, positions of the other, and their distance, three equal lengths.
    """
    edges = np.linspace(0, _BITS, distance + 2).round().astype(int)
    # Shuffled, so that the neighbours in a crowded band are of all splits and classes.
    order = np.random.default_rng(0).permutation(len(hashes))
    for start, end in pairwise(edges.tolist()):
        band = (hashes >> np.uint64(start)) & np.uint64((1 << (end - start)) - 1)
        by_band = order[np.lexsort((hashes[order], band[order]))]
        yield from _near_neighbours(by_band, hashes=hashes, band=band, distance=distance)


def _near_neighbours(
    by_band: NDArray[np.intp],
    *,
    hashes: NDArray[np.uint64],
    band: NDArray[np.uint64],
    distance: int,
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.uint8]]]:
    """Compare each hash with those that follow it in the same band."""
    sorted_band = band[by_band]
    active: NDArray[np.intp] = np.arange(len(by_band))
    for offset in range(1, _MAX_NEIGHBOURS + 1):
        active = active[active + offset < len(by_band)]
        active = active[sorted_band[active] == sorted_band[active + offset]]
        if not len(active):
            return
        first, second = by_band[active], by_band[active + offset]
        differing = np.bitwise_count(hashes[first] ^ hashes[second])
        near = differing <= distance
        if near.any():
            yield first[near], second[near], differing[near]


@cache
def _cosines() -> NDArray[np.float32]:
    """The (8, 32) lowest rows of the DCT-II; their scale does not move the median's place."""
    frequency = np.arange(_LOW_FREQUENCIES)[:, None]
    position = 2 * np.arange(SIDE)[None, :] + 1
    return np.cos(np.pi * frequency * position / (2 * SIDE)).astype(np.float32)


# --- inspection ---

_IMAGES_PER_TASK = 64

COMPARED_SIDE = 256
"""Pixels of the shorter side that are enough to tell what is on an image."""


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What one file turned out to be."""

    problem: str = ""
    """Why it cannot be used; '' where it can. All else is empty where it cannot."""
    format: str = ""
    mode: str = ""
    """Pillow's mode; 'P+alpha' and the like where a plain mode marks a colour transparent."""
    width: int = 0
    height: int = 0
    looks: int | None = None
    """Perceptual hash; None where it would say nothing."""

    @property
    def is_usable(self) -> bool:
        """Whether the image could be decoded."""
        return not self.problem

    @property
    def is_too_small_to_compare(self) -> bool:
        """Whether it has too few pixels for a perceptual hash."""
        return self.is_usable and min(self.width, self.height) < SIDE


@dataclass(frozen=True)
class Inspection:
    """A data set with the facts about each of its images."""

    dataset: Dataset
    facts: tuple[ImageFacts, ...]
    """One for each record, in the same order."""

    @property
    def usable(self) -> list[int]:
        """Positions of the images that could be decoded."""
        return [position for position, facts in enumerate(self.facts) if facts.is_usable]


def inspect_image(path: Path, *, limits: ImageLimits = OWN_IMAGES) -> ImageFacts:
    """Decode one image to its end; a bad one is a fact, too.

    Raises:
        MemoryShortageError: it could not be looked at, which says nothing about the image.
    """
    try:
        with open_image(path, limits=limits, shorter_side=COMPARED_SIDE) as (image, size):
            return ImageFacts(
                format="JPEG" if image.format == "MPO" else image.format or "",
                mode=_mode(image),
                width=size[0],
                height=size[1],
                looks=perceptual_hash(upright_rgb(image)),
            )
    except ImageError as error:
        return ImageFacts(problem=str(error))
    except OSError as error:
        return ImageFacts(problem=f"cannot be read: {error.strerror or error}")


def inspect_images(
    dataset: Dataset, *, limits: ImageLimits = OWN_IMAGES, progress: Progress = SILENT
) -> Inspection:
    """Decode all images in threads; no more than a few decoded ones exist at a time.

    Raises:
        MemoryShortageError: as `inspect_image`.
    """
    inspect = partial(_inspect_batch, limits=limits)
    paths = [dataset.file(record) for record in dataset.records]
    starts = range(0, len(paths), _IMAGES_PER_TASK)
    facts: list[ImageFacts] = []
    pool = ThreadPoolExecutor(max_workers=os.cpu_count())
    # Decoding filters warnings, too: threads that do so at once undo each other's filters.
    with warnings.catch_warnings(), progress.task("Checking images", total=len(paths)) as task:
        warnings.simplefilter("ignore")
        try:
            for batch in pool.map(
                inspect, [paths[start : start + _IMAGES_PER_TASK] for start in starts]
            ):
                facts += batch
                task.advance(len(batch))
        finally:
            pool.shutdown(cancel_futures=True)
    return Inspection(dataset=dataset, facts=tuple(facts))


def _inspect_batch(paths: Sequence[Path], *, limits: ImageLimits) -> list[ImageFacts]:
    return [inspect_image(path, limits=limits) for path in paths]


def _mode(image: Image.Image) -> str:
    hidden_alpha = image.has_transparency_data and image.mode in ("1", "L", "RGB", "P")
    return f"{image.mode}+alpha" if hidden_alpha else image.mode
