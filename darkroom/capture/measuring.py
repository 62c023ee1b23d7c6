"""Statistics of a tensor, on the device where it lies: one row of numbers, few passes over it.

The columns are those of darkroom.rules.evidence.STATISTICS.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import frexp, nan, sqrt

import torch
from torch import Tensor, nn

from darkroom.rules.evidence import STATISTICS
from darkroom.rules.statistics import EPSILON, RELATIVE_TOLERANCE, even_stride

MOST_SAMPLED = 16_384
"""Elements, evenly strided, behind percentiles and the comparison with an earlier value."""
_MOST_AVERAGED = 262_144
"""Elements, evenly strided, behind averages: their standard error is then below 0.2 % of the
standard deviation. Extremes, NaN and infinities are those of all elements."""
_LEAST_EXPONENT = -100

_SATURATING: dict[type[nn.Module], tuple[float, float]] = {
    nn.Tanh: (-9.4999, 9.4999),  # SaturatedActivation's defaults
    nn.Sigmoid: (-23, 16.99999),
    nn.Hardsigmoid: (-3, 3),  # where it is constant, by definition
    nn.Hardtanh: (-1, 1),
}
_NEARLY_ZERO = {nn.SiLU: 1e-3, nn.GELU: 1e-3, nn.ELU: 1e-3, nn.LeakyReLU: 1e-3}
"""Functions that come close to zero without being it: what counts as zero."""


@dataclass(frozen=True)
class Measured:
    """A tensor's statistics, and the sample by which it can be compared later."""

    statistics: tuple[float, ...]
    """In the order of STATISTICS."""
    sample: Tensor


def measure(tensor: Tensor, *, earlier: Tensor | None = None) -> Measured:
    """Statistics of a tensor of any shape with at least one element.

    Args:
        tensor: of any floating type.
        earlier: the sample of the tensor's earlier value, for the two columns that compare.
    """
    flat = _flat(tensor.detach()).float()
    sample = _every_nth(flat, most=MOST_SAMPLED)
    lowest, highest = (float(value) for value in torch.aminmax(flat))
    if lowest - lowest == highest - highest == 0:  # neither NaN nor infinite
        values = _of_finite(flat, sample=sample, lowest=lowest, highest=highest)
    else:
        values = _of_damaged(flat)
    compared = _compared(sample, earlier=earlier)
    return Measured(tuple((values | compared)[name] for name in STATISTICS), sample.clone())


def active_shares(output: Tensor, *, module: nn.Module) -> Tensor:
    """(C,) share of each channel's elements that are not zero in a module's (n, C, …) output."""
    values = output.detach()
    if threshold := _NEARLY_ZERO.get(type(module)):
        values = values.abs() > threshold
    return _shares_not_zero(values)


def unsaturated_shares(values: Tensor, *, module: nn.Module) -> Tensor | None:
    """(C,) share of each channel's (n, C, …) inputs that a module does not flatten.

    None: the module saturates nowhere, or on one side only as a ReLU does.
    """
    bounds = _SATURATING.get(type(module))
    if bounds is None:
        return None
    return _shares_not_zero((values.detach() > bounds[0]) & (values.detach() < bounds[1]))


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute the block in one thread.

    The tensors are small, so that threads would mostly wait for each other: where anything
    else runs on the machine they made a look ten to twenty times as slow.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _shares_not_zero(values: Tensor) -> Tensor:
    others = [dimension for dimension in range(values.ndim) if dimension != 1]
    counted = torch.count_nonzero(values, dim=others)
    return counted.float() / (values.numel() // values.shape[1])


def _every_nth(flat: Tensor, *, most: int) -> Tensor:
    return flat[:: even_stride(flat.numel(), most=most)]


def _flat(tensor: Tensor) -> Tensor:
    """All elements in memory order: a copy only where there is no such order."""
    if tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        tensor = tensor.permute(0, 2, 3, 1)
    return tensor.reshape(-1)


def _of_finite(flat: Tensor, *, sample: Tensor, lowest: float, highest: float) -> dict[str, float]:
    part = _every_nth(flat, most=_MOST_AVERAGED)
    # In two passes: torch.std_mean, one that is not vectorised, took nearly half of a look.
    # Scaled, so that sums and squares neither overflow nor vanish.
    scale, count = _power_of_two(max(-lowest, highest)), part.numel()
    scaled = part / scale
    mean = scaled.mean()
    deviation = scale * float(torch.linalg.vector_norm(scaled - mean)) / sqrt(count)
    low, high = _percentiles(sample)
    return {
        "mean": scale * float(mean),
        "std": deviation if lowest < highest else 0.0,  # not a rounded mean's
        "minimum": lowest,
        "maximum": highest,
        "abs_mean": scale * float(torch.linalg.vector_norm(scaled, ord=1)) / count,
        "p5": low,
        "p95": high,
        "zero_share": 1 - int(torch.count_nonzero(part)) / count,
        "nan_share": 0.0,
        "infinite_share": 0.0,
    }


def _power_of_two(size: float) -> float:
    """Near a size: what is divided by it keeps every bit. Not so small that 1 / it overflows."""
    return 2.0 ** max(frexp(size)[1] - 1, _LEAST_EXPONENT)


def _of_damaged(flat: Tensor) -> dict[str, float]:
    """Of the finite elements, and the shares of the others."""
    shares = {
        "nan_share": float(flat.isnan().float().mean()),
        "infinite_share": float(flat.isinf().float().mean()),
    }
    finite = flat[flat.isfinite()]
    if not finite.numel():
        return dict.fromkeys(STATISTICS, nan) | {"zero_share": 0.0} | shares
    lowest, highest = (float(value) for value in torch.aminmax(finite))
    sample = _every_nth(finite, most=MOST_SAMPLED)
    return _of_finite(finite, sample=sample, lowest=lowest, highest=highest) | shares


def _percentiles(sample: Tensor) -> tuple[float, float]:
    """The nearest-rank 5th and 95th percentile, of every fourth element of a large sample."""
    sample = sample[:: 4 if sample.numel() > MOST_SAMPLED // 4 else 1]
    last = sample.numel() - 1
    low = sample.kthvalue(round(0.05 * last) + 1).values
    high = sample.kthvalue(round(0.95 * last) + 1).values
    return float(low), float(high)


def _compared(sample: Tensor, *, earlier: Tensor | None) -> dict[str, float]:
    if earlier is None or earlier.shape != sample.shape:
        return {"update_ratio": nan, "change_excess": nan}
    change = (sample - earlier).abs()
    size = earlier.abs()
    return {
        "update_ratio": float(change.mean() / (size.mean() + EPSILON)),
        "change_excess": float((change - RELATIVE_TOLERANCE * size).max()),
    }
