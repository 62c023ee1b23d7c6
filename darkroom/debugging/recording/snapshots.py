"""One look into the network: what is kept of its tensors at one step."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from math import frexp, nan, sqrt
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from darkroom.telemetry.evidence import STATISTICS, Kind, Mode, parameter_kind
from darkroom.telemetry.tensors import EPSILON, RELATIVE_TOLERANCE, even_stride

# --- measures of a tensor ---
# Statistics of a tensor, on the device where it lies: one row of numbers, few passes over it.
#
# The columns are those of darkroom.telemetry.evidence.STATISTICS.

MAX_SAMPLED = 16_384
"""Elements, evenly strided, behind percentiles and the comparison with an earlier value."""
_MAX_AVERAGED = 262_144
"""Elements, evenly strided, behind averages: their standard error is then below 0.2 % of the
standard deviation. Extremes, NaN and infinities are those of all elements."""
_MIN_EXPONENT = -100

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
    sample = _every_nth(flat, most=MAX_SAMPLED)
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
    part = _every_nth(flat, most=_MAX_AVERAGED)
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
    return 2.0 ** max(frexp(size)[1] - 1, _MIN_EXPONENT)


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
    sample = _every_nth(finite, most=MAX_SAMPLED)
    return _of_finite(finite, sample=sample, lowest=lowest, highest=highest) | shares


def _percentiles(sample: Tensor) -> tuple[float, float]:
    """The nearest-rank 5th and 95th percentile, of every fourth element of a large sample."""
    sample = sample[:: 4 if sample.numel() > MAX_SAMPLED // 4 else 1]
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


# --- snapshots ---

ACTIVATIONS = (
    nn.ReLU,
    nn.ReLU6,
    nn.Hardswish,
    nn.SiLU,
    nn.GELU,
    nn.ELU,
    nn.LeakyReLU,
    nn.PReLU,
    nn.Sigmoid,
    nn.Hardsigmoid,
    nn.Tanh,
    nn.Hardtanh,
)
"""Modules whose inputs and outputs are looked at; functional calls cannot be."""

_MAX_IMAGES = 8
"""Of a batch whose activations are measured: enough for shares, and a quarter of the time."""


@dataclass(frozen=True)
class Captured:
    """What is kept of one tensor."""

    name: str
    """Of the parameter or module; 'layer1.0.relu:1' for its second call in a forward pass."""
    kind: Kind
    statistics: tuple[float, ...] = ()
    """In the order of STATISTICS; empty for labels."""
    units: NDArray[Any] | None = None
    """See telemetry.evidence.Statistics.units."""
    value: NDArray[Any] | None = None
    """The whole tensor."""


@dataclass
class Look:
    """What was captured at a step of a mode."""

    mode: Mode
    step: int
    """Of the mode."""
    full: bool
    """Whether whole tensors are kept, beside the statistics."""
    tensors: list[Captured] = field(default_factory=list)

    def add(
        self,
        name: str,
        *,
        kind: Kind,
        tensor: Tensor,
        earlier: Tensor | None = None,
        units: Tensor | None = None,
        whole: bool = False,
    ) -> Tensor:
        """Measure a tensor and keep its statistics.

        Args:
            name: of the parameter or module.
            earlier: the sample that this returned at an earlier look; None: there was none.
            units: (C,) shares by channel, or the input's (n, 3) means; see `Statistics.units`.
            whole: keep the tensor itself too, even where the look keeps statistics only.

        Returns:
            The elements, evenly strided, by which a later value of the tensor can be compared.
        """
        measured = measure(tensor, earlier=earlier)
        self.tensors.append(
            Captured(
                name,
                kind=kind,
                statistics=measured.statistics,
                units=None if units is None else _array(units),
                value=_array(tensor) if self.full or whole else None,
            )
        )
        return measured.sample


class ParameterWatch:
    """Parameters over the looks: gradients, values, and how far they went in between."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._samples: dict[tuple[str, str], Tensor] = {}

    def look(self, look: Look, *, gradients: bool) -> None:
        """Measure every parameter, and its gradient where it has one."""
        with one_thread():
            self._look(look, gradients=gradients)

    def _look(self, look: Look, *, gradients: bool) -> None:
        for name, parameter in self._model.named_parameters():
            self._add(look, name, kind=parameter_kind(name), tensor=parameter)
            if gradients and parameter.grad is not None:
                self._add(look, name, kind="gradient", tensor=parameter.grad)

    def _add(self, look: Look, name: str, *, kind: Kind, tensor: Tensor) -> None:
        key = (kind, name)
        self._samples[key] = look.add(
            name, kind=kind, tensor=tensor, earlier=self._samples.get(key)
        )


@dataclass(frozen=True)
class _Passed:
    """What went into or came out of a module, of a few images."""

    name: str
    kind: Kind
    module: nn.Module
    values: Tensor


@contextmanager
def watching_activations(model: nn.Module) -> Iterator[list[_Passed]]:
    """Keep what goes into and comes out of the activation modules in the block.

    Inputs are copied before the module runs: one that works in place overwrites them.
    """
    calls: Counter[str] = Counter()
    passed: list[_Passed] = []

    def keep(name: str, module: nn.Module, *, kind: Kind, values: Tensor) -> None:
        """Note what goes into or comes out of a module.

        Args:
            name: of the module; a number is added from its second call on.
            values: (n, …); those of the first few images are copied.
        """
        few = values.detach()[:_MAX_IMAGES].clone()
        passed.append(_Passed(_call_name(name, calls[name]), kind, module, few))

    def before(module: nn.Module, inputs: tuple[Tensor, ...], *, name: str) -> None:
        keep(name, module, kind="activation_input", values=inputs[0])

    def after(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, *, name: str) -> None:
        """Note what a module gave, as its forward hook, and count the call.

        Args:
            inputs: given by torch, and noted before: the module may have overwritten them since.
            name: of the module, bound to the hook.
        """
        keep(name, module, kind="activation", values=output)
        calls[name] += 1

    handles = []
    for name, module in model.named_modules():
        if isinstance(module, ACTIVATIONS):
            handles.append(module.register_forward_pre_hook(partial(before, name=name)))
            handles.append(module.register_forward_hook(partial(after, name=name)))
    try:
        yield passed
    finally:
        for handle in handles:
            handle.remove()


def measure_activations(look: Look, passed: Sequence[_Passed]) -> None:
    """Measure what `watching_activations` kept."""
    with one_thread():
        for one in passed:
            shares = active_shares if one.kind == "activation" else unsaturated_shares
            look.add(
                one.name,
                kind=one.kind,
                tensor=one.values,
                units=shares(one.values, module=one.module),
            )


def _call_name(name: str, number: int) -> str:
    return f"{name}:{number}" if number else name


def _array(tensor: Tensor) -> NDArray[Any]:
    """A copy on the CPU; bfloat16, which numpy lacks, as float32."""
    detached = tensor.detach()
    if detached.dtype is torch.bfloat16:
        detached = detached.float()
    array: NDArray[Any] = detached.cpu().contiguous().numpy().copy()
    return array
