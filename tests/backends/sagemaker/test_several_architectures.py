"""Real networks of two architectures behind one endpoint, each packed as a training packs it."""

from pathlib import Path

import pytest

from commands.deploy import expectations
from darkroom.backends.sagemaker.cleanup import Selection, find, remove
from darkroom.backends.sagemaker.hosting.several_models import deploy_several, verify_several
from darkroom.models.bundle import Bundle, read_bundle
from darkroom.models.export import pack_bundle
from darkroom.models.network import build_model
from darkroom.training.examples import preprocessing_of
from pictures import write_image_folder
from rehearsed_hosting import briefly, enter, rehearsed
from small_trainings import read_dataset, small_hyperparameters

pytestmark = pytest.mark.slow  # they export networks, and start processes

SIZES = {"resnet18": 64, "mobilenet_v2": 32}
CLASSES = {"resnet18": ("beagle", "collie", "poodle"), "mobilenet_v2": ("hat", "shirt")}


def packed(architecture: str, *, folder: Path) -> Bundle:
    images = write_image_folder(folder / "images", classes=CLASSES[architecture])
    dataset, size = read_dataset(images), SIZES[architecture]
    hyperparameters = small_hyperparameters(architecture=architecture, image_size=size)
    model = build_model(architecture, classes=len(dataset.classes), image_size=size, seed=1)
    place = folder / "bundle"
    pack_bundle(
        model,
        dataset=dataset,
        hyperparameters=hyperparameters,
        preprocessing=preprocessing_of(hyperparameters),
        metrics={},
        folder=place,
    )
    return read_bundle(place)


def test_two_architectures_with_classes_of_their_own_are_verified_behind_one_endpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundles = {name.replace("_", "-"): packed(name, folder=tmp_path / name) for name in CLASSES}
    assert {bundle.metadata.architecture for bundle in bundles.values()} == set(CLASSES)
    with rehearsed(tmp_path / "account") as opened:
        aws = enter(opened, monkeypatch)
        endpoint = deploy_several(
            bundles, name="both", site=aws.site(), clients=aws.clients, pause=briefly
        )
        for folder in (None, tmp_path / "resnet18" / "images"):
            with expectations(bundles, folder=folder) as expected:
                checks = verify_several(
                    endpoint, expected=expected, tolerance=1e-3, clients=aws.clients, pause=briefly
                )
            images = 1 if folder is None else 32
            assert {name: check.images for name, check in checks.items()} == dict.fromkeys(
                bundles, images
            )
        for thing in find(Selection(everything=True), clients=aws.clients):
            remove(thing, clients=aws.clients, pause=briefly)
        assert aws.names() == set()
