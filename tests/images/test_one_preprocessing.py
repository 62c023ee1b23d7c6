"""One preprocessing, made before a training, decides what the network sees there and served."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from darkroom.base.files import sha256_of
from darkroom.data.dataset import Dataset, ImageRecord, make_dataset
from darkroom.images import Preprocessing, prepare
from darkroom.models.bundle import read_metadata
from darkroom.models.export import pack_bundle
from darkroom.models.prediction import Predictor
from darkroom.training import loop
from darkroom.training.examples import preprocessing_of
from darkroom.training.loop import TrainingResult, train
from pictures import picture
from small_trainings import PlainNetwork, small_hyperparameters

USUAL = preprocessing_of(small_hyperparameters())
CHANGES: list[dict[str, Any]] = [
    {"resize_size": 24},
    {"image_size": 12},
    {"mean": (0.1, 0.2, 0.3)},
    {"std": (0.5, 0.6, 0.7)},
    {"reduced_decoding": False},
]
SEEN: list[torch.Tensor] = []


class Watched(PlainNetwork):
    """Notes what it is given for validation."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if not self.training:
            SEEN.append(images.clone())
        return super().forward(images)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """JPEGs of photographs' sizes for a network of 16 pixels: large enough to be drafted."""
    root = tmp_path_factory.mktemp("photographs")
    rng, records = np.random.default_rng(0), []
    for split, count in (("train", 3), ("validation", 2)):
        for index, label in enumerate(("blue", "green", "red")):
            for number in range(count):
                name = f"{split}-{label}-{number}.jpg"
                small = picture(rng, index=index, size=(23 + number, 31))
                small.resize((231, 317), Image.Resampling.BICUBIC).save(root / name, quality=95)
                record = ImageRecord(name, label, split, 1, sha256_of(root / name))
                records.append(record)
    return make_dataset(records, root=root, source="photographs")


def trained(dataset: Dataset, *, home: Path) -> tuple[TrainingResult, np.ndarray]:
    """A training, and what its network was given of the validation images."""
    SEEN.clear()
    result = train(
        dataset,
        hyperparameters=small_hyperparameters(epochs=1, warmup_epochs=0.5),
        folder=home / "run",
        cache=home / "cache",
    )
    return result, SEEN[0].numpy()


@pytest.fixture(autouse=True)
def watched(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(architecture: str, *, seed: int, **_: object) -> nn.Module:
        torch.manual_seed(seed)
        return Watched()

    monkeypatch.setattr(loop, "build_model", build)


def files(dataset: Dataset) -> list[Path]:
    return [dataset.file(record) for record in dataset.split("validation")]


@pytest.mark.parametrize("change", [{}, *CHANGES], ids=str)
def test_each_part_of_it_decides_what_training_sees(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    how = USUAL.model_copy(update=change)
    monkeypatch.setattr(loop, "preprocessing_of", lambda hyperparameters: how)
    result, seen = trained(dataset, home=tmp_path)
    assert result.preprocessing == how
    expected = np.stack([prepare(file, how) for file in files(dataset)])
    assert np.array_equal(seen, expected)
    usual = np.stack([prepare(file, USUAL) for file in files(dataset)])
    assert np.array_equal(expected, usual) == (not change)


def test_every_field_is_tried() -> None:
    assert {name for change in CHANGES for name in change} == set(Preprocessing.model_fields)


@pytest.mark.slow
@pytest.mark.parametrize("change", [{}, CHANGES[4] | CHANGES[0] | CHANGES[2] | CHANGES[3]], ids=str)
def test_a_server_sees_what_training_saw_and_says_the_same(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    how = USUAL.model_copy(update=change)
    monkeypatch.setattr(loop, "preprocessing_of", lambda hyperparameters: how)
    result, seen = trained(dataset, home=tmp_path)
    pack_bundle(
        result.model,
        dataset=dataset,
        hyperparameters=small_hyperparameters(),
        preprocessing=result.preprocessing,
        metrics=result.metrics,
        folder=tmp_path / "bundle",
    )
    assert read_metadata(tmp_path / "bundle").preprocessing == how
    predictor = Predictor.load(tmp_path / "bundle", threads=1)
    served = np.stack([predictor.prepare(file) for file in files(dataset)])
    assert np.array_equal(served, seen)
    with torch.inference_mode():
        expected = result.model(torch.from_numpy(seen)).softmax(dim=1).numpy()
    assert np.allclose(predictor.predict(files(dataset)), expected, atol=1e-5)
