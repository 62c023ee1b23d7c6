"""How fast an instance works, roughly: enough to tell minutes from hours, no more.

The cost of an architecture is what torchvision publishes of it. The speed of a family of
instances is an order of magnitude from experience, given as a range; only two points were
measured, on two cores that compute bfloat16 (README): resnet18 at 128 px reached 92 images a
second, and about 42 without bfloat16. What is done to images before the network was measured
on one such core.
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

_MAX_GAIN = 40
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
        return max(here / reference, 1 / _MAX_GAIN)


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
    threads, processes = (units, 1) if family in _CPU_SPEEDS else (1, units)
    low, high = (
        processes
        * _between_batches(each * threads / workload.relative_cost, image_size=workload.image_size)
        for each in speed
    )
    return Span(low, high)


def _vcpus(size: str) -> int:
    """xlarge has 4 vCPUs, and 12xlarge 12 times as many."""
    times = size.removesuffix("xlarge")
    return 4 * int(times) if times.isdigit() else _VCPUS.get(size, 2)


TRANSFER = Span(50e6, 200e6)
"""Bytes a second between S3 and a machine: an order of magnitude, measured by nobody here."""
UPLOAD = Span(1e6, 50e6)
"""Bytes a second from where the run is started, a home or an office."""
_PHOTOGRAPH_BYTES = 110_000
_USUAL_BYTES = Span(50_000, 300_000)
"""Of a photograph in the known public data sets of photographs, where only the sum is known."""
_DECODE_SECONDS = 3.3e-3
_INSPECT_SECONDS = 3.1e-3
"""Of one core, for a photograph of 110 kB: decoding it at working size; looking at it and hashing
it while the data are validated. Both measured on one core."""
_MIN_SHARE = 0.1
"""Of these times, for images of a few hundred bytes: 0.27 ms were measured."""
_BATCHED_AT_224 = 2015
_MAX_BATCHED = 20_000
"""Images a second that one thread makes training batches of, from decoded images of 224 px; a
training process makes them between two steps. 2,015, 3,934 and 5,341 were measured at 224, 160
and 128 px."""
_UNEVEN = 1.7
"""How much longer several cores take than they would if all worked all the time."""
_INFERENCE_GAIN = 3
"""Of a network that is not trained: one pass forward, of the three that a step comes to."""
_COLOURS, _ASPECT = 3, 1.38
"""Of decoded photographs: 139 and 272 kB were measured at 160 and 224 px."""


@dataclass(frozen=True)
class DataSize:
    """How large a data set is; a range of images where only the bytes are known."""

    images: Span
    size: float
    """Bytes of all images."""
    is_counted: bool
    """Whether the number of images is known."""

    @classmethod
    def of(cls, *, images: int | None, size: int | None) -> "DataSize | None":
        """From what a source tells; None where it tells neither."""
        if images is not None:
            known = images * _PHOTOGRAPH_BYTES if size is None else size
            return cls(Span(images, images), size=known, is_counted=True)
        if size is None:
            return None
        return cls(
            Span(size / _USUAL_BYTES.high, size / _USUAL_BYTES.low), size=size, is_counted=False
        )

    def share(self, part: float) -> "DataSize":
        """A part of it."""
        return DataSize(
            Span(self.images.low * part, self.images.high * part),
            size=self.size * part,
            is_counted=self.is_counted,
        )

    def transferred(self, rate: Span = TRANSFER) -> Span:
        """Seconds to bring it from one place to another."""
        return Span(self.size / rate.high, self.size / rate.low)

    def inspected(self, instance_type: str) -> Span:
        """Seconds to look at every image."""
        return self._on_all_cores(_INSPECT_SECONDS, instance_type=instance_type)

    def decoded(self, instance_type: str) -> Span:
        """Seconds to decode every image."""
        return self._on_all_cores(_DECODE_SECONDS, instance_type=instance_type)

    def decoded_bytes(self, working_size: int) -> Span:
        """Of the decoded images, the shorter side so many pixels long."""
        each = _COLOURS * _ASPECT * working_size**2
        return Span(self.images.low * each, self.images.high * each)

    def _on_all_cores(self, seconds: float, *, instance_type: str) -> Span:
        average = self.size / max(self.images.high, 1)
        share = min(1.0, max(_MIN_SHARE, average / _PHOTOGRAPH_BYTES))
        cores = cores_of(instance_type)
        return Span(
            self.images.low * seconds * share / cores,
            self.images.high * seconds * share / cores * _UNEVEN,
        )


def cores_of(instance_type: str) -> int:
    """The vCPUs of an instance."""
    parts = _TYPE.fullmatch(instance_type)
    return _vcpus(parts["size"]) if parts else _VCPUS["large"]


def inference_speed(workload: Workload, *, instance_type: str) -> Span | None:
    """Images a second that an instance classifies on its processor; None: unknown."""
    speed = training_speed(workload, instance_type=instance_type)
    return None if speed is None else _after_decoding(speed, gain=_INFERENCE_GAIN)


def _after_decoding(speed: Span, *, gain: float) -> Span:
    low, high = (1 / (1 / (each * gain) + _DECODE_SECONDS) for each in speed)
    return Span(low, high)


def _between_batches(speed: float, *, image_size: int) -> float:
    """Images a second of a process that makes each batch before it trains on it."""
    batched = min(_MAX_BATCHED, _BATCHED_AT_224 * (224 / image_size) ** 2)
    return 1 / (1 / speed + 1 / batched)
