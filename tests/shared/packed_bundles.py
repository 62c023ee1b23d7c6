"""Bundles of real networks with random weights, exported as those of trainings are."""

from pathlib import Path

from darkroom.models.bundle import Bundle, read_bundle
from darkroom.models.export import pack_bundle
from darkroom.models.network import build_model
from darkroom.training.examples import preprocessing_of
from small_trainings import small_hyperparameters, write_dataset


def packed_bundle(
    root: Path, *, architecture: str = "mobilenet_v3_small", image_size: int = 32
) -> Bundle:
    """Pack an untrained network of three classes below `root`; its images lie in root/images."""
    dataset = write_dataset(root / "images")
    hyperparameters = small_hyperparameters(architecture=architecture, image_size=image_size)
    model = build_model(architecture, classes=len(dataset.classes), image_size=image_size, seed=0)
    folder = root / "bundle"
    pack_bundle(
        model,
        dataset=dataset,
        hyperparameters=hyperparameters,
        preprocessing=preprocessing_of(hyperparameters),
        metrics={},
        folder=folder,
    )
    return read_bundle(folder)
