"""Optimiser, learning rate, loss and precision."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from darkroom.config import Hyperparameters
from darkroom.models.network import build_model
from darkroom.training.learner import (
    autocast_type,
    batch_loss,
    class_weights,
    learning_rate_at,
    make_optimizer,
)


def rates(*, warmup_epochs: float, epochs: int = 4, steps: int = 10) -> list[float]:
    hyperparameters = Hyperparameters(learning_rate=1.0, epochs=epochs, warmup_epochs=warmup_epochs)
    return [
        learning_rate_at(step, steps_per_epoch=steps, hyperparameters=hyperparameters)
        for step in range(steps * epochs + 1)
    ]


def precision(
    device: str, *, image_size: int = 96, mixed_precision: str = "auto"
) -> torch.dtype | None:
    return autocast_type(
        build_model("shufflenet_v2_x0_5", classes=3, seed=0),
        image_size=image_size,
        device=torch.device(device),
        mixed_precision=mixed_precision,
    )


def test_the_learning_rate_warms_up_linearly_and_decays_to_zero() -> None:
    series = rates(warmup_epochs=0.4)
    assert series[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert series[22] == pytest.approx(0.5)
    assert series[40] == pytest.approx(0.0)
    assert all(later < earlier for earlier, later in pairwise(series[4:]))


def test_without_warm_up_the_first_step_has_the_peak() -> None:
    assert rates(warmup_epochs=0)[0] == 1.0


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_biases_and_normalisation_do_not_decay(name: str) -> None:
    model = build_model("shufflenet_v2_x0_5", classes=3, seed=0)
    hyperparameters = Hyperparameters.model_validate({"optimizer": name, "weight_decay": 0.3})
    optimizer = make_optimizer(model, hyperparameters=hyperparameters)
    decaying, others = optimizer.param_groups
    assert decaying["weight_decay"] == 0.3
    assert others["weight_decay"] == 0
    assert {parameter.ndim for parameter in decaying["params"]} == {2, 4}
    assert {parameter.ndim for parameter in others["params"]} == {1}


def test_frozen_parameters_are_not_optimised() -> None:
    model = build_model("shufflenet_v2_x0_5", classes=3, fine_tune="head", seed=0)
    optimizer = make_optimizer(model, hyperparameters=Hyperparameters())
    optimised = [each for group in optimizer.param_groups for each in group["params"]]
    assert [tuple(each.shape) for each in optimised] == [(3, 1024), (3,)]


def test_class_weights_balance_the_classes() -> None:
    labels = np.array([0] * 6 + [2] * 2)
    weights = class_weights(labels, classes=3, weighted=True)
    assert weights.tolist() == pytest.approx([8 / (2 * 6), 0, 8 / (2 * 2)])
    assert class_weights(labels, classes=3, weighted=False).tolist() == [1, 1, 1]


def test_the_losses_of_unequal_shares_add_up_to_the_mean_loss_of_the_batch() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(7, 3, generator=generator)
    labels = torch.tensor([0, 1, 2, 0, 0, 1, 2])
    weights = torch.tensor([0.5, 2.0, 3.0])
    shares = [
        batch_loss(
            logits[part],
            labels[part],
            weights=weights,
            total_weight=float(weights[labels].sum()),
            smoothing=0.1,
        )
        for part in (slice(0, 2), slice(2, 7))
    ]
    expected = cross_entropy(logits, labels, weight=weights, label_smoothing=0.1)
    assert sum(shares).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": False, "avx512_f": True}, None),
        ({}, None),
    ],
)
def test_a_cpu_computes_in_bfloat16_only_where_it_has_the_instructions(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: torch.dtype | None
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert precision("cpu") is expected
    assert precision("cpu", mixed_precision="off") is None


def test_small_images_are_trained_on_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert precision("cpu", image_size=64) is None
    assert precision("cpu", image_size=65) is torch.bfloat16


def test_a_cpu_stays_in_float32_where_its_bfloat16_gradients_are_unsafe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    monkeypatch.setattr("darkroom.training.learner.SMALL_IMAGE", 8)
    assert precision("cpu", image_size=32) is torch.bfloat16
    # Its last stage then strides by two over a single pixel.
    assert precision("cpu", image_size=16) is None


@pytest.mark.parametrize(("native", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
def test_a_gpu_computes_in_float16_where_it_lacks_bfloat16(
    monkeypatch: pytest.MonkeyPatch, native: bool, expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *, including_emulation: native)
    assert precision("cuda", image_size=16) is expected
