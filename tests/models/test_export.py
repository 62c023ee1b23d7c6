"""Packing a trained network: the bundle's content, and the proof that it agrees."""

import logging
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from checkout import CHECKOUT
from darkroom.base.errors import DarkroomError, UserError
from darkroom.config import Hyperparameters
from darkroom.data.dataset import Dataset, ImageRecord, make_dataset
from darkroom.models import export
from darkroom.models.bundle import ONNX_FILE, WEIGHTS_FILE, read_metadata
from darkroom.models.export import export_onnx, pack_bundle, portable_copy
from darkroom.models.prediction import Predictor
from darkroom.training.examples import preprocessing_of
from pictures import write_image_folder

pytestmark = pytest.mark.slow  # they export

HYPERPARAMETERS = Hyperparameters(image_size=16, weights="none")


class SmallNetwork(nn.Module):
    """A convolution, a batch norm, an activation in place, and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU6(inplace=True)
        )
        self.head = nn.Linear(8, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(images).mean(dim=(2, 3)))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("images")
    write_image_folder(root, splits=("train", "validation"), per_class=3)
    records = [
        ImageRecord(str(path.relative_to(root)), path.parent.name, path.parts[-3], 0, path.name)
        for path in root.rglob("*.png")
    ]
    return make_dataset(records, root=root, source="pictures")


def pack(model: nn.Module, *, dataset: Dataset, folder: Path) -> None:
    pack_bundle(
        model,
        dataset=dataset,
        hyperparameters=HYPERPARAMETERS,
        preprocessing=preprocessing_of(HYPERPARAMETERS),
        metrics={"accuracy": 0.5},
        folder=folder,
    )


@pytest.fixture(scope="module")
def bundle(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed") / "bundle"
    pack(SmallNetwork().train(), dataset=dataset, folder=folder)
    return folder


def test_the_metadata_says_what_was_packed(bundle: Path, dataset: Dataset) -> None:
    metadata = read_metadata(bundle)
    assert metadata.classes == ("blue", "green", "red")
    assert metadata.data_fingerprint == dataset.fingerprint
    assert metadata.hyperparameters == HYPERPARAMETERS.model_dump()
    assert (metadata.preprocessing.image_size, metadata.preprocessing.resize_size) == (16, 18)
    assert metadata.export_check.images == 9
    assert metadata.export_check.top1_agreement == 1
    assert metadata.export_check.maximum_probability_difference < 1e-5
    assert metadata.parity
    assert sum(metadata.parity.probabilities) == pytest.approx(1)
    Predictor.load(bundle).self_test()
    assert metadata.versions["torch"] == torch.__version__.partition("+")[0]


def test_the_weights_are_the_networks(bundle: Path) -> None:
    expected = SmallNetwork().state_dict()
    stored = load_file(bundle / WEIGHTS_FILE)
    assert stored.keys() == expected.keys()
    assert all(torch.equal(stored[name], expected[name]) for name in expected)
    assert (bundle / WEIGHTS_FILE).stat().st_mode & 0o777 == 0o644


def test_the_bundle_predicts_what_torch_does_at_any_batch_size(bundle: Path) -> None:
    images = np.random.default_rng(0).normal(size=(5, 3, 16, 16)).astype(np.float32)
    predictor = Predictor.load(bundle)
    with torch.no_grad():
        expected = SmallNetwork().eval()(torch.from_numpy(images)).softmax(dim=1).numpy()
    for size in (1, 5):
        np.testing.assert_allclose(
            predictor.probabilities(images[:size]), expected[:size], atol=1e-6
        )


def test_the_same_weights_give_the_same_onnx_bytes(bundle: Path, tmp_path: Path) -> None:
    export_onnx(portable_copy(SmallNetwork()), image_size=16, path=tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == (bundle / ONNX_FILE).read_bytes()


def test_the_onnx_file_tells_nothing_of_the_machine(bundle: Path) -> None:
    model = onnx.load(bundle / ONNX_FILE, load_external_data=False)
    onnx.checker.check_model(model)
    text = str(model)
    for word in ("site-packages", ".py", "stack_trace", "metadata_props", str(Path.cwd())):
        assert word not in text
    assert not any(tensor.external_data for tensor in model.graph.initializer)


def test_the_trained_network_is_left_as_it_was(dataset: Dataset, tmp_path: Path) -> None:
    model = SmallNetwork().to(memory_format=torch.channels_last).train()
    pack(model, dataset=dataset, folder=tmp_path / "bundle")
    assert model.training
    assert model.features[2].inplace
    assert model.features[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_a_bundle_is_replaced_by_a_newer_one(
    bundle: Path, dataset: Dataset, tmp_path: Path
) -> None:
    folder = tmp_path / "bundle"
    pack(SmallNetwork(), dataset=dataset, folder=folder)
    changed = SmallNetwork()
    with torch.no_grad():
        changed.head.bias += 1
    pack(changed, dataset=dataset, folder=folder)
    assert read_metadata(folder).version != read_metadata(bundle).version


def test_a_folder_with_something_else_is_not_overwritten(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="no model bundle"):
        pack(SmallNetwork(), dataset=dataset, folder=tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_an_export_that_disagrees_is_refused_and_nothing_is_left(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def export_another(network: nn.Module, *, image_size: int, path: Path) -> None:
        other = portable_copy(network)
        with torch.no_grad():
            other.head.weight.neg_()
            other.head.bias.neg_()
        export_onnx(other, image_size=image_size, path=path)

    monkeypatch.setattr(export, "export_onnx", export_another)
    with pytest.raises(DarkroomError, match=r"disagrees with torch on .* of 9 validation images"):
        pack(SmallNetwork(), dataset=dataset, folder=tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_without_validation_images_there_is_no_bundle(dataset: Dataset, tmp_path: Path) -> None:
    train_only = dataset.without(
        [record.path for record in dataset.split("validation")], reason="test"
    )
    with pytest.raises(UserError, match="no validation images"):
        pack(SmallNetwork(), dataset=train_only, folder=tmp_path / "bundle")


def test_the_exporter_is_silent(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        export_onnx(portable_copy(SmallNetwork()), image_size=16, path=tmp_path / "m.onnx")
    captured = capfd.readouterr()
    remarks = [record for record in caplog.records if record.levelno >= logging.INFO]
    assert (captured.out, captured.err, remarks, caught) == ("", "", [], [])


def test_nothing_writes_a_networks_tensors_beside_it() -> None:
    """CVE-2025-51480 of onnx below 1.18: save_external_data may be led outside of its folder."""
    sources = [*(CHECKOUT / "darkroom").rglob("*.py"), *(CHECKOUT / "steps").rglob("*.py")]
    assert any("import onnx" in path.read_text() for path in sources)
    words = ("save_external_data", "convert_model_to_external_data", "save_as_external_data")
    found = [path.name for path in sources for word in words if word in path.read_text()]
    assert found == []
