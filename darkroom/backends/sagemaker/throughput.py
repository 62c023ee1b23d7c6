"""How fast an instance trains, roughly: enough to tell minutes from hours, no more.

The cost of an architecture is what torchvision publishes of it. The speed of a family of
instances is an order of magnitude from experience, given as a range; only two points were
measured, on two cores that compute bfloat16 (README): resnet18 at 128 px reached 92 images a
second, and about 42 without bfloat16.
"""

import re
from dataclasses import dataclass
from typing import NamedTuple


class Span(NamedTuple):
    """From the least to the most that is to be expected."""

    low: float
    high: float


_OPERATIONS: dict[str, tuple[float, int]] = {
    "alexnet": (0.714, 224),
    "convnext_base": (15.355, 224),
    "convnext_large": (34.361, 224),
    "convnext_small": (8.684, 224),
    "convnext_tiny": (4.456, 224),
    "densenet121": (2.834, 224),
    "densenet161": (7.728, 224),
    "densenet169": (3.36, 224),
    "densenet201": (4.291, 224),
    "efficientnet_b0": (0.386, 224),
    "efficientnet_b1": (0.687, 240),
    "efficientnet_b2": (1.088, 288),
    "efficientnet_b3": (1.827, 300),
    "efficientnet_b4": (4.394, 380),
    "efficientnet_b5": (10.266, 456),
    "efficientnet_b6": (19.068, 528),
    "efficientnet_b7": (37.746, 600),
    "efficientnet_v2_l": (56.08, 480),
    "efficientnet_v2_m": (24.582, 480),
    "efficientnet_v2_s": (8.366, 384),
    "googlenet": (1.498, 224),
    "inception_v3": (5.713, 299),
    "maxvit_t": (5.558, 224),
    "mnasnet0_5": (0.104, 224),
    "mnasnet0_75": (0.215, 224),
    "mnasnet1_0": (0.314, 224),
    "mnasnet1_3": (0.526, 224),
    "mobilenet_v2": (0.301, 224),
    "mobilenet_v3_large": (0.217, 224),
    "mobilenet_v3_small": (0.057, 224),
    "regnet_x_16gf": (15.941, 224),
    "regnet_x_1_6gf": (1.603, 224),
    "regnet_x_32gf": (31.736, 224),
    "regnet_x_3_2gf": (3.177, 224),
    "regnet_x_400mf": (0.414, 224),
    "regnet_x_800mf": (0.8, 224),
    "regnet_x_8gf": (7.995, 224),
    "regnet_y_128gf": (374.57, 384),
    "regnet_y_16gf": (15.912, 224),
    "regnet_y_1_6gf": (1.612, 224),
    "regnet_y_32gf": (32.28, 224),
    "regnet_y_3_2gf": (3.176, 224),
    "regnet_y_400mf": (0.402, 224),
    "regnet_y_800mf": (0.834, 224),
    "regnet_y_8gf": (8.473, 224),
    "resnet101": (7.801, 224),
    "resnet152": (11.514, 224),
    "resnet18": (1.814, 224),
    "resnet34": (3.664, 224),
    "resnet50": (4.089, 224),
    "resnext101_32x8d": (16.414, 224),
    "resnext101_64x4d": (15.46, 224),
    "resnext50_32x4d": (4.23, 224),
    "shufflenet_v2_x0_5": (0.04, 224),
    "shufflenet_v2_x1_0": (0.145, 224),
    "shufflenet_v2_x1_5": (0.296, 224),
    "shufflenet_v2_x2_0": (0.583, 224),
    "squeezenet1_0": (0.819, 224),
    "squeezenet1_1": (0.349, 224),
    "swin_b": (15.431, 224),
    "swin_s": (8.741, 224),
    "swin_t": (4.491, 224),
    "swin_v2_b": (20.325, 256),
    "swin_v2_s": (11.546, 256),
    "swin_v2_t": (5.94, 256),
    "vgg11": (7.609, 224),
    "vgg11_bn": (7.609, 224),
    "vgg13": (11.308, 224),
    "vgg13_bn": (11.308, 224),
    "vgg16": (15.47, 224),
    "vgg16_bn": (15.47, 224),
    "vgg19": (19.632, 224),
    "vgg19_bn": (19.632, 224),
    "vit_b_16": (17.564, 224),
    "vit_b_32": (4.409, 224),
    "vit_h_14": (1016.72, 518),
    "vit_l_16": (61.555, 224),
    "vit_l_32": (15.378, 224),
    "wide_resnet101_2": (22.753, 224),
    "wide_resnet50_2": (11.398, 224),
}
"""Billions of multiply-adds for one image, and its size in pixels: torchvision's `_ops`."""

_REFERENCE = "resnet18"

_CPU_SPEEDS = {
    # Of each vCPU.
    "t3": Span(1, 4),
    "m4": Span(2, 5),
    "m5": Span(3, 8),
    "m5d": Span(3, 8),
    "c4": Span(2, 6),
    "c5": Span(4, 9),
    "c5n": Span(4, 9),
    "r5": Span(3, 8),
    "m6i": Span(4, 10),
    "c6i": Span(4, 10),
    "m7i": Span(6, 20),
    "c7i": Span(6, 20),
    "r7i": Span(6, 20),
}
_GPU_SPEEDS = {
    # Of one GPU: a training process uses one.
    "g4dn": Span(200, 500),
    "g5": Span(400, 1200),
    "g6": Span(400, 1200),
    "g6e": Span(600, 2000),
    "p3": Span(400, 1200),
    "p4d": Span(800, 3000),
    "p4de": Span(800, 3000),
    "p5": Span(1000, 5000),
}
"""Images a second on which resnet18 is trained at 224 px, by family of instances."""

_LARGEST_GAIN = 40
"""Smaller images are cheaper, but not without end: 32 px at most so many times."""

_TYPE = re.compile(r"ml\.(?P<family>[a-z0-9-]+)\.(?P<size>[a-z0-9]+)")
_VCPUS = {"medium": 2, "large": 2, "xlarge": 4}


@dataclass(frozen=True)
class Workload:
    """What an image of a training costs."""

    architecture: str
    image_size: int

    @property
    def relative_cost(self) -> float:
        """Against resnet18 at 224 px; convolutions grow with the area of the image."""
        operations, size = _OPERATIONS[self.architecture]
        reference, _ = _OPERATIONS[_REFERENCE]
        here = operations * (self.image_size / size) ** 2
        return max(here / reference, 1 / _LARGEST_GAIN)


def training_speed(workload: Workload, *, instance_type: str, processes: int = 1) -> Span | None:
    """Images a second of one instance; None where nothing is known of its family.

    Args:
        processes: training processes; on an instance with GPUs, so many of them are used.
    """
    parts = _TYPE.fullmatch(instance_type)
    if not parts:
        return None
    family = parts["family"]
    if speed := _GPU_SPEEDS.get(family):
        units = processes
    elif speed := _CPU_SPEEDS.get(family):
        units = _vcpus(parts["size"])
    else:
        return None
    factor = units / workload.relative_cost
    return Span(speed.low * factor, speed.high * factor)


def _vcpus(size: str) -> int:
    """xlarge has 4 vCPUs, and 12xlarge 12 times as many."""
    times = size.removesuffix("xlarge")
    return 4 * int(times) if times.isdigit() else _VCPUS.get(size, 2)
