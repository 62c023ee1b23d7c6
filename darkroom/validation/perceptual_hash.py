"""Telling that two pictures look the same, whatever their size and compression.

The hash is pHash: 32×32 grey pixels, discrete cosine transform, the 8×8 lowest frequencies,
one bit each for above their median. Zauner, "Implementation and Benchmarking of Perceptual
Image Hash Functions", 2010, section 3.2.1; https://www.phash.org/docs/pubs/thesis_zauner.pdf
"""

from collections.abc import Iterator
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 32
"""Pixels of the grey picture behind the hash; smaller pictures do not hold the detail."""

MINIMUM_CONTRAST = 5.0
"""Standard deviation, of 255, below which a picture is too even to be told from others."""

_BITS = 64
_LOW_FREQUENCIES = 8
_MOST_NEIGHBOURS = 1000
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
    if square.std() < MINIMUM_CONTRAST:
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
    for offset in range(1, _MOST_NEIGHBOURS + 1):
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
