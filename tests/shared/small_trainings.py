"""Trainings that take a second, for tests; as a program, in a process of its own or in several.

python small_trainings.py IMAGES FOLDER CACHE KILLED_AFTER_STEPS
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
from torch import nn

from darkroom.base.files import sha256_of
from darkroom.base.progress import PlainProgress, SilentProgress
from darkroom.config import Hyperparameters
from darkroom.data.dataset import Dataset, ImageRecord, make_dataset
from darkroom.training.loop import EpochMetrics, TrainingResult, train
from pictures import write_image_folder

PER_CLASS = 12


def write_dataset(root: Path) -> Dataset:
    """Three colours; of each twelve images eight to train on and two in each other split."""
    write_image_folder(root, per_class=PER_CLASS)
    return read_dataset(root)


def read_dataset(root: Path) -> Dataset:
    splits = ["train"] * (PER_CLASS - 4) + ["validation"] * 2 + ["test"] * 2
    records = [
        ImageRecord(
            path=path.relative_to(root).as_posix(),
            label=path.parent.name,
            split=splits[int(path.stem)],
            size=path.stat().st_size,
            sha256=sha256_of(path),
        )
        for path in root.glob("*/*.png")
    ]
    return make_dataset(records, root=root, source="colours")


def small_hyperparameters(**values: object) -> Hyperparameters:
    defaults = {
        "architecture": "mobilenet_v3_small",
        "weights": "none",
        "image_size": 16,
        "batch_size": 8,
        "epochs": 3,
        "mixed_precision": "off",
    }
    return Hyperparameters.model_validate(defaults | values)


def run_training(
    dataset: Dataset,
    *,
    home: Path,
    folder: str = "run",
    on_epoch: Callable[[EpochMetrics], None] | None = None,
    progress: SilentProgress | None = None,
    **values: object,
) -> TrainingResult:
    return train(
        dataset,
        hyperparameters=small_hyperparameters(**values),
        folder=home / folder,
        cache=home / "cache",
        on_epoch=on_epoch,
        progress=progress or SilentProgress(),
    )


class KillingProgress(SilentProgress):
    """Kills this process after so many units of work, as the system would."""

    def __init__(self, steps: int) -> None:
        self._left = steps

    def task(self, description: str, *, total: float | None = None) -> "KillingProgress":
        return self

    def __enter__(self) -> "KillingProgress":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def advance(self, amount: float = 1, *, detail: str = "") -> None:
        self._left -= int(amount)
        if self._left < 0:
            os.kill(os.getpid(), signal.SIGKILL)


class PlainNetwork(nn.Sequential):
    """Learns colours without batch-norm and dropout."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3, stride=2),
            nn.GroupNorm(2, 8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 3),
        )


def plain_training(
    dataset: Dataset, *, home: Path, progress: SilentProgress | None = None
) -> TrainingResult:
    """Train a PlainNetwork in place of torchvision's."""

    def build(architecture: str, *, seed: int, **_: object) -> nn.Module:
        torch.manual_seed(seed)
        return PlainNetwork()

    with mock.patch("darkroom.training.loop.build_model", build):
        return run_training(dataset, home=home, progress=progress, learning_rate=0.02)


if __name__ == "__main__":
    images, home, how = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    if how == "--plain":
        plain_training(read_dataset(images), home=home, progress=PlainProgress(sys.stdout))
    else:
        run_training(read_dataset(images), home=home, progress=KillingProgress(int(how)))
