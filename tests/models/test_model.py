"""Networks: any architecture, any number of classes, frozen or not."""

from pathlib import Path

import pytest
import torch
from torch import nn

from darkroom.base.errors import UserError
from darkroom.config.sections import ARCHITECTURES
from darkroom.models.network import (
    build_model,
    has_active_batch_norm,
    head_name,
    load_weights,
    save_weights,
    set_training_mode,
)

SMALL = "shufflenet_v2_x0_5"
FAST = ["mobilenet_v2", "mobilenet_v3_small", "resnet18", "squeezenet1_1", SMALL]
OTHERS = ["mobilenet_v3_large", "resnet34", "resnet50", "efficientnet_b0", "convnext_tiny"]


def check_that_it_learns(architecture: str, *, image_size: int = 32) -> None:
    model = build_model(architecture, classes=3, image_size=image_size, seed=0)
    set_training_mode(model)
    logits = model(torch.randn(2, 3, image_size, image_size))
    assert logits.shape == (2, 3)
    # Cross entropy, since a vision transformer's head starts from zeros.
    nn.functional.cross_entropy(logits, torch.tensor([0, 1])).backward()
    head = model.get_submodule(head_name(model, classes=3))
    assert head.weight.grad.abs().sum() > 0
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("architecture", FAST)
def test_a_network_of_any_family_passes_forward_and_backward(architecture: str) -> None:
    check_that_it_learns(architecture)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", OTHERS)
def test_a_large_network_passes_forward_and_backward(architecture: str) -> None:
    check_that_it_learns(architecture)


@pytest.mark.slow
@pytest.mark.parametrize(
    "architecture", ["googlenet", "inception_v3", "regnet_y_400mf", "vit_b_32", "swin_t"]
)
def test_a_network_that_needs_options_passes_forward_and_backward(architecture: str) -> None:
    check_that_it_learns(architecture, image_size=96)


@pytest.mark.slow
@pytest.mark.parametrize(
    # torchvision's regnets compute with numbers while they are built: not on shapes alone.
    "architecture",
    [a for a in ARCHITECTURES if not a.startswith(("vit_h", "regnet"))],
)
def test_every_architecture_is_built_with_the_wanted_number_of_outputs(architecture: str) -> None:
    with torch.device("meta"):
        model = build_model(architecture, classes=5, image_size=224, seed=0)
        model.eval()
        assert model(torch.empty(1, 3, 224, 224)).shape == (1, 5)


def test_an_unknown_architecture_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"unknown architecture 'resnet19'.*resnet18"):
        build_model("resnet19", classes=3, seed=0)


@pytest.mark.parametrize("architecture", ["alexnet", "inception_v3"])
def test_an_image_size_that_the_architecture_cannot_work_on_is_refused(architecture: str) -> None:
    with pytest.raises(UserError, match=f"{architecture} cannot work on images of 16 pixels"):
        build_model(architecture, classes=3, image_size=16, seed=0)


def test_the_seed_decides_the_initial_weights_and_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    first, same, other = (build_model(SMALL, classes=3, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first.fc.weight, same.fc.weight)
    assert not torch.equal(first.fc.weight, other.fc.weight)


def test_the_head_is_found_where_it_is_no_linear_layer() -> None:
    model = build_model("squeezenet1_1", classes=3, seed=0)
    assert isinstance(model.get_submodule(head_name(model, classes=3)), nn.Conv2d)


def test_fine_tuning_the_head_leaves_everything_else_as_it_was() -> None:
    model = build_model(SMALL, classes=3, fine_tune="head", seed=0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    set_training_mode(model)
    optimizer = torch.optim.SGD(
        [parameter for parameter in model.parameters() if parameter.requires_grad], lr=1.0
    )
    model(torch.randn(4, 3, 32, 32)).square().mean().backward()
    optimizer.step()
    changed = {
        name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])
    }
    assert changed == {"fc.weight", "fc.bias"}
    assert not has_active_batch_norm(model)


def test_saved_weights_are_readable_by_all_and_load_unchanged(tmp_path: Path) -> None:
    model = build_model(SMALL, classes=3, seed=1).to(memory_format=torch.channels_last)
    path = tmp_path / "weights.safetensors"
    save_weights(model, path)
    assert path.stat().st_mode & 0o777 == 0o644
    loaded = build_model(SMALL, classes=3, seed=2)
    load_weights(loaded, path)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name])


def test_weights_of_another_network_do_not_load(tmp_path: Path) -> None:
    save_weights(build_model(SMALL, classes=3, seed=0), tmp_path / "weights.safetensors")
    with pytest.raises(UserError, match="weights of another network"):
        load_weights(build_model("resnet18", classes=3, seed=0), tmp_path / "weights.safetensors")
