"""Statistics on a training's device are those that numpy computes."""

import numpy as np
import pytest
import torch
from torch import nn

from darkroom.debugging.recording.snapshots import (
    active_shares,
    measure,
    one_thread,
    unsaturated_shares,
)
from darkroom.telemetry.evidence import STATISTICS
from darkroom.telemetry.tensors import tensor_statistics


def measured(tensor: torch.Tensor, *, earlier: torch.Tensor | None = None) -> dict[str, float]:
    sample = None if earlier is None else measure(earlier).sample
    return dict(zip(STATISTICS, measure(tensor, earlier=sample).statistics, strict=True))


@pytest.mark.parametrize("shape", [(7,), (5, 4), (8, 3, 5, 5)])
def test_both_ways_to_measure_agree(shape: tuple[int, ...]) -> None:
    earlier, now = torch.randn(shape), torch.randn(shape)
    now.flatten()[0] = 0
    expected = tensor_statistics(now.numpy(), previous=earlier.numpy())
    assert measured(now, earlier=earlier) == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_a_large_tensor_is_sampled_but_its_extremes_are_exact() -> None:
    large = torch.randn(1_000_003)
    large[777] = 50
    values = measured(large)
    expected = tensor_statistics(large.numpy())
    assert values["maximum"] == 50
    for name in ("mean", "std", "abs_mean", "p5", "p95"):
        assert values[name] == pytest.approx(expected[name], rel=0.1, abs=0.01)


def test_the_layout_in_memory_does_not_matter() -> None:
    images = torch.randn(4, 3, 8, 8)
    other = images.to(memory_format=torch.channels_last)
    assert measured(other) == pytest.approx(measured(images), rel=1e-5, nan_ok=True)


def test_nan_and_infinity_are_counted_and_the_rest_is_measured() -> None:
    values = measured(torch.tensor([1.0, 3.0, torch.nan, torch.inf]))
    assert (values["nan_share"], values["infinite_share"]) == (0.25, 0.25)
    assert (values["mean"], values["maximum"]) == (2.0, 3.0)
    nothing = measured(torch.full((3,), torch.nan))
    assert nothing["nan_share"] == 1
    assert np.isnan(nothing["mean"])


def test_a_single_number_and_half_precision_are_measured() -> None:
    assert measured(torch.tensor([2.0]))["std"] == 0
    assert measured(torch.ones(4, dtype=torch.bfloat16))["mean"] == 1


@pytest.mark.parametrize("size", [1e-42, 1e-30, 3e-20, 1.0, 1e20, 1e38])
def test_of_tiny_and_huge_numbers_neither_sums_nor_squares_are_lost(size: float) -> None:
    around_zero = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0, 3.0], dtype=torch.float64)
    values = (around_zero * size).float()
    expected = tensor_statistics(values.double().numpy())
    for name in ("mean", "std", "abs_mean", "zero_share"):
        assert measured(values)[name] == pytest.approx(expected[name], rel=1e-5), name


def test_what_is_the_same_everywhere_does_not_vary() -> None:
    values = measured(torch.full((1000,), 0.1))
    assert values["std"] == 0
    assert values["mean"] == pytest.approx(0.1)
    assert measured(torch.zeros(3))["std"] == measured(torch.zeros(3))["mean"] == 0


def test_channels_that_are_never_active_have_no_share() -> None:
    output = torch.zeros(2, 3, 4, 4)
    output[:, 1] = 1
    output[0, 2] = 1
    assert active_shares(output, module=nn.ReLU()).tolist() == [0, 1, 0.5]
    assert active_shares(torch.full((2, 1, 2), 1e-6), module=nn.SiLU()).tolist() == [0]


def test_only_what_saturates_has_a_range() -> None:
    inputs = torch.tensor([[[-20.0, 0.0]], [[20.0, 1.0]]])
    shares = unsaturated_shares(inputs, module=nn.Tanh())
    assert shares is not None
    assert shares.tolist() == [0.5]
    assert unsaturated_shares(inputs, module=nn.ReLU()) is None


def test_threads_are_as_they_were() -> None:
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
