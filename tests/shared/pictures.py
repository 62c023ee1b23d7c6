"""Pictures that tests learn from: each class has a hue of its own, no two are alike."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def write_image_folder(
    root: Path,
    *,
    classes: Sequence[str] = ("blue", "green", "red"),
    per_class: int = 12,
    size: tuple[int, int] = (24, 20),
    splits: Sequence[str] = (),
    suffix: str = ".png",
) -> Path:
    """Write class folders, below split folders if any are named; return `root`."""
    rng = np.random.default_rng(len(classes) * 1000 + per_class)
    for split in splits or ("",):
        for index, label in enumerate(classes):
            folder = root / split / label
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(per_class):
                picture(rng, index=index, size=size).save(folder / f"{number:04}{suffix}")
    return root


def picture(rng: np.random.Generator, *, index: int, size: tuple[int, int]) -> Image.Image:
    """Noise in which one channel is brighter, by class."""
    pixels = rng.integers(0, 90, (size[1], size[0], 3), dtype=np.uint8)
    pixels[..., index % 3] += np.uint8(140 - 20 * (index // 3))
    return Image.fromarray(pixels)
