"""Decoding every image of a data set and noting what it is."""

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from darkroom.dataset import Dataset
from darkroom.images import OWN_IMAGES, ImageError, ImageLimits, open_image, upright_rgb
from darkroom.progress import SILENT, Progress
from darkroom.validation.perceptual_hash import SIDE, perceptual_hash

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
