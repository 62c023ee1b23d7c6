"""What every test starts from: a workspace of its own, and no settings of the user's."""

import os

# Before torch is imported: tests run side by side, one thread each.
os.environ["OMP_NUM_THREADS"] = "1"

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

_FOREIGN = ("AWS_", "DARKROOM_", "MLFLOW_", "SAGEMAKER_", "SM_", "ZENML_")

ImageFolder = Callable[..., Path]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the user's environment is seen, nothing is written outside tmp_path."""
    for name in list(os.environ):
        if name.startswith(_FOREIGN):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DARKROOM_HOME", str(tmp_path / "darkroom-home"))


@pytest.fixture
def image_folder(tmp_path: Path) -> ImageFolder:
    """A factory of image-folder trees that a small network can learn.

    Each class has a hue of its own; every picture differs, so none are duplicates.
    """

    def make(
        name: str = "images",
        *,
        classes: tuple[str, ...] = ("blue", "green", "red"),
        per_class: int = 12,
        size: tuple[int, int] = (24, 20),
        splits: tuple[str, ...] = (),
        suffix: str = ".png",
    ) -> Path:
        root = tmp_path / name
        rng = np.random.default_rng(len(classes) * 1000 + per_class)
        for split in splits or ("",):
            for index, label in enumerate(classes):
                folder = root / split / label
                folder.mkdir(parents=True, exist_ok=True)
                for number in range(per_class):
                    _picture(rng, index=index, size=size).save(folder / f"{number:04}{suffix}")
        return root

    return make


def _picture(rng: np.random.Generator, *, index: int, size: tuple[int, int]) -> Image.Image:
    pixels = rng.integers(0, 90, (size[1], size[0], 3), dtype=np.uint8)
    pixels[..., index % 3] += np.uint8(140 - 20 * (index // 3))
    return Image.fromarray(pixels)
