"""One look into the network: what is kept of its tensors at one step."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from darkroom.capture.measuring import active_shares, measure, one_thread, unsaturated_shares
from darkroom.rules.evidence import Kind, Mode, parameter_kind

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

_MOST_IMAGES = 8
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
    """See rules.evidence.Statistics.units."""
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
        """Keep a tensor; returns the sample by which it can be compared later."""
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
        few = values.detach()[:_MOST_IMAGES].clone()
        passed.append(_Passed(_call_name(name, calls[name]), kind, module, few))

    def before(module: nn.Module, inputs: tuple[Tensor, ...], *, name: str) -> None:
        keep(name, module, kind="activation_input", values=inputs[0])

    def after(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, *, name: str) -> None:
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
