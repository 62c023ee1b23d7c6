"""Networks in memory: names as torchvision has them, statistics as they could have been."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from darkroom.telemetry.evidence import STATISTICS, Kind, Mode, Statistics

Shape = Callable[[int, np.ndarray], np.ndarray]
"""From a layer's depth (0: the input's) and the share of the training to values."""


@dataclass
class MemoryTensors:
    """Statistics by kind and name, as a TensorSource."""

    statistics_by: Mapping[Kind, Mapping[str, Statistics]] = field(default_factory=dict)

    def names(self, kind: Kind) -> Sequence[str]:
        return list(self.statistics_by.get(kind, {}))

    def statistics(self, name: str, *, kind: Kind, mode: Mode = "train") -> Statistics:
        known = self.statistics_by.get(kind, {})
        if mode == "train" and name in known:
            return known[name]
        return statistics_of(np.array([], dtype=np.int64))

    def value(self, name: str, *, kind: Kind, step: int, mode: Mode = "train") -> None:
        return None


def statistics_of(steps: np.ndarray, **columns: np.ndarray) -> Statistics:
    """With NaN in the columns that are not given, and no broken values."""
    unknown = np.full(len(steps), np.nan)
    sound = {name: np.zeros(len(steps)) for name in ("zero_share", "nan_share", "infinite_share")}
    return Statistics(steps, {**dict.fromkeys(STATISTICS, unknown), **sound, **columns})


def resnet(blocks: Sequence[int], *, convolutions: int = 2) -> list[str]:
    """Names of a residual network's parameters: (2, 2, 2, 2) has 62 of them."""
    names = ["conv1.weight", "bn1.weight", "bn1.bias"]
    for layer, count in enumerate(blocks, start=1):
        for block in range(count):
            prefix = f"layer{layer}.{block}"
            for part in range(1, convolutions + 1):
                names += [f"{prefix}.conv{part}.weight"]
                names += [f"{prefix}.bn{part}.{kind}" for kind in ("weight", "bias")]
            if block == 0 and (layer > 1 or convolutions > 2):
                names += [f"{prefix}.downsample.0.weight"]
                names += [f"{prefix}.downsample.1.{kind}" for kind in ("weight", "bias")]
    return [*names, "fc.weight", "fc.bias"]


def mobilenet() -> list[str]:
    """Names as in a MobileNet, whose parts are called after what they are made of: 142."""
    names = ["features.0.0.weight", "features.0.1.weight", "features.0.1.bias"]
    for block in range(1, 16):
        for part in range(3):
            prefix = f"features.{block}.block.{part}"
            names += [f"{prefix}.0.weight", f"{prefix}.1.weight", f"{prefix}.1.bias"]
    return [*names, *(f"classifier.{i}.{kind}" for i in (0, 3) for kind in ("weight", "bias"))]


RESNET_62, MOBILENET_142 = resnet((2, 2, 2, 2)), mobilenet()
RESNET_161, RESNET_467 = resnet((3, 4, 6, 3), convolutions=3), resnet((3, 8, 36, 3), convolutions=3)


def looks(count: int) -> np.ndarray:
    """Steps that are looked into: the first five, then every 25th."""
    return np.array([*range(min(5, count)), *range(25, count, 25)], dtype=np.int64)


def network(
    names: Sequence[str],
    *,
    steps: int,
    gradient: Shape | None = None,
    active: Shape | None = None,
    broken_from: float = 2.0,
) -> MemoryTensors:
    """Statistics of every layer.

    Args:
        gradient: mean size; by default alike in all layers, falling slowly.
        active: share of units that are not zero.
        broken_from: share of the training from which gradients are NaN.
    """
    at, random = looks(steps), np.random.default_rng(1)
    share = at / max(1, steps)
    gradient = gradient or (lambda depth, share: 2e-3 * 0.985**depth * np.exp(-1.5 * share))
    active = active or (lambda depth, share: 0.55 - 0.002 * depth - 0.05 * share)
    broken = share >= broken_from
    gradients, parameters, activations = {}, {"weight": {}, "bias": {}}, {}
    for depth, name in enumerate(names):
        noise = np.exp(random.normal(scale=0.3, size=len(at)) + random.normal(scale=0.4))
        size = np.where(broken, np.nan, gradient(depth, share) * noise)
        gradients[name] = statistics_of(at, abs_mean=size, nan_share=broken * 1.0)
        ratio = np.where(np.arange(len(at)) > 0, 8e-3 * noise * np.exp(-3 * share), np.nan)
        parameters["bias" if name.endswith("bias") else "weight"][name] = statistics_of(
            at, update_ratio=ratio, abs_mean=np.full(len(at), 0.03)
        )
        if name.endswith(("conv1.weight", ".0.weight")):
            zero = 1 - np.clip(active(depth, share) * noise**0.2, 0, 1)
            activations[name.replace(".weight", ".relu")] = statistics_of(at, zero_share=zero)
    kinds = {"gradient": gradients, "activation": activations, **parameters}
    return MemoryTensors(kinds)
