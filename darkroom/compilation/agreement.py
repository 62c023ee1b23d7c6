"""The pictures on which engines have to agree with torch."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from darkroom.dataset import Dataset
from darkroom.engines.protocol import Floats
from darkroom.errors import UserError
from darkroom.images import Preprocessing, prepare


def validation_images(dataset: Dataset, *, preprocessing: Preprocessing, most: int) -> Floats:
    """(N, 3, S, S) images of the validation split, evenly picked.

    Raises:
        UserError: there are none.
    """
    records = dataset.split("validation")
    return prepared([dataset.file(record) for record in records], how=preprocessing, most=most)


def prepared(files: Sequence[Path], *, how: Preprocessing, most: int) -> Floats:
    """(N, 3, S, S) of files, evenly picked.

    Raises:
        UserError: there are none, or one cannot be decoded.
    """
    if not files:
        raise UserError("there are no images to compare the engines on")
    positions = np.linspace(0, len(files) - 1, min(most, len(files)), dtype=int)
    return np.stack([prepare(files[position], how) for position in positions])


def generated_images(size: int, *, count: int) -> Floats:
    """(N, 3, S, S) waves of all lengths and noise, where no photographs are at hand."""
    generator = np.random.default_rng(0)
    axis = np.linspace(0, 2 * np.pi, size)
    x, y = np.meshgrid(axis, axis)
    images = []
    for _ in range(count):
        a, b, c = generator.uniform(0.5, 12, (3, 3))
        waves = np.sin(a[:, None, None] * x + b[:, None, None] * y + c[:, None, None])
        images.append(1.5 * waves + generator.normal(0, 0.3, (3, size, size)))
    return np.stack(images).astype(np.float32)
