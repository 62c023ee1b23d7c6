"""The images and labels of a split as training consumes them."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from darkroom.config import Hyperparameters
from darkroom.dataset import Dataset, Split
from darkroom.errors import UserError
from darkroom.images import Preprocessing
from darkroom.progress import Progress
from darkroom.training.distributed import ProcessGroup
from darkroom.training.pixel_cache import PixelCache, open_pixel_cache


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
    """Open a split's pixel cache in `folder`; a host's first process builds it where missing."""
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
