"""Pretrained weights: where they come from, and what is said when they do not."""

import json
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import nn

from darkroom.base.errors import UserError
from darkroom.models.bundle import METADATA_FILE, WEIGHTS_FILE, pack
from darkroom.models.network import build_model, save_weights
from small_bundles import rewrite_digests, write_small_bundle

SMALL = "shufflenet_v2_x0_5"
IMAGENET_URL = "https://download.pytorch.org/models/shufflenetv2_x0.5-f707e7126e.pth"


@pytest.fixture
def imagenet_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a download would be kept, on a machine without a network."""

    def unreachable(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("torch.hub.urlopen", unreachable)
    return tmp_path / "torch" / "hub" / "checkpoints" / IMAGENET_URL.rsplit("/", 1)[-1]


def small_network(*, classes: int, seed: int) -> nn.Module:
    return build_model(SMALL, classes=classes, seed=seed)


def write_bundle(folder: Path, *, classes: int = 3) -> Path:
    """A bundle that holds a real network's weights."""
    write_small_bundle(folder)
    save_weights(small_network(classes=classes, seed=5), folder / WEIGHTS_FILE)
    metadata = json.loads((folder / METADATA_FILE).read_text())
    (folder / METADATA_FILE).write_text(json.dumps(metadata | {"architecture": SMALL}))
    rewrite_digests(folder)
    return folder


def test_unreachable_imagenet_weights_name_the_file_its_place_and_the_alternatives(
    imagenet_file: Path,
) -> None:
    with pytest.raises(UserError) as caught:
        build_model(SMALL, classes=3, weights="imagenet", seed=0)
    message = str(caught.value)
    for part in ("no route to host", IMAGENET_URL, str(imagenet_file), "'none'", ".safetensors"):
        assert part in message
    assert not imagenet_file.exists()


def test_imagenet_weights_put_in_place_by_hand_are_used_without_a_network(
    imagenet_file: Path,
) -> None:
    imagenet_file.parent.mkdir(parents=True)
    pretrained = small_network(classes=1000, seed=5)
    torch.save(pretrained.state_dict(), imagenet_file)
    model = build_model(SMALL, classes=3, weights="imagenet", seed=0)
    assert torch.equal(model.conv1[0].weight, pretrained.conv1[0].weight)
    assert model.fc.out_features == 3


def test_a_broken_imagenet_file_is_named(imagenet_file: Path) -> None:
    imagenet_file.parent.mkdir(parents=True)
    imagenet_file.write_bytes(b"<html>proxy error</html>")
    with pytest.raises(UserError, match="delete that file first"):
        build_model(SMALL, classes=3, weights="imagenet", seed=0)


def test_a_pickle_in_place_of_weights_is_never_executed(imagenet_file: Path) -> None:
    imagenet_file.parent.mkdir(parents=True)
    torch.save({"fc.weight": _Trap(imagenet_file.parent / "sprung")}, imagenet_file)
    with pytest.raises(UserError, match="unavailable"):
        build_model(SMALL, classes=3, weights="imagenet", seed=0)
    assert not (imagenet_file.parent / "sprung").exists()


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
def test_a_bundle_s_weights_are_taken_over(tmp_path: Path, packed: bool) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    if packed:
        pack(bundle, tmp_path / "model.tar.gz")
        bundle = tmp_path / "model.tar.gz"
    model = build_model(SMALL, classes=3, weights=str(bundle), seed=0)
    expected = small_network(classes=3, seed=5).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())


def test_the_head_stays_new_where_the_classes_differ_in_number(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(small_network(classes=7, seed=5), path)
    model = build_model(SMALL, classes=3, weights=str(path), seed=0)
    assert torch.equal(model.conv1[0].weight, small_network(classes=7, seed=5).conv1[0].weight)
    assert torch.equal(model.fc.weight, small_network(classes=3, seed=0).fc.weight)


def test_weights_of_another_architecture_are_refused_with_counts(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(small_network(classes=3, seed=5), path)
    with pytest.raises(UserError, match=r"another architecture: 0 of the network's \d+ tensors"):
        build_model("resnet18", classes=3, weights=str(path), seed=0)


def test_a_bundle_of_another_architecture_is_refused(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    with pytest.raises(UserError, match=f"holds a {SMALL}, and model.architecture is 'resnet18'"):
        build_model("resnet18", classes=3, weights=str(bundle), seed=0)


def test_a_bundle_with_a_changed_byte_is_refused(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    content = bytearray((bundle / WEIGHTS_FILE).read_bytes())
    content[-1] ^= 1
    (bundle / WEIGHTS_FILE).write_bytes(content)
    with pytest.raises(UserError, match="is not the file that was packed"):
        build_model(SMALL, classes=3, weights=str(bundle), seed=0)


def test_a_missing_or_unreadable_weights_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no weights at 'nowhere\.safetensors'"):
        build_model(SMALL, classes=3, weights="nowhere.safetensors", seed=0)
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match="is no readable safetensors file"):
        build_model(SMALL, classes=3, weights=str(tmp_path / "torn.safetensors"), seed=0)


@pytest.mark.slow
def test_position_embeddings_are_interpolated_to_the_image_size(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(build_model("vit_b_32", classes=3, image_size=96, seed=5), path)
    model = build_model("vit_b_32", classes=3, weights=str(path), image_size=64, seed=0)
    assert model.encoder.pos_embedding.shape == (1, 1 + 2 * 2, 768)


class _Trap:
    """Unpickling it would create a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self._path,)
