"""What is measured of each engine, and what was concluded. Imports no engine."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from darkroom.base.errors import UserError
from darkroom.data.dataset import Dataset
from darkroom.images import Preprocessing, prepare
from darkroom.models.engine import EngineName, Floats

# --- results ---

Objective = Literal["latency", "throughput", "memory", "size"]

BATCHES = (1, 8, 32)
"""Sizes for which the throughput is measured."""


class _Result(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Measurement(_Result):
    """One engine on one machine."""

    load_ms: float
    """From the call to the loaded network, once the engine is imported."""
    latency_ms: float
    """Of a batch of one: the median of the rounds' medians."""
    latency_ms_p99: float
    images_per_second: dict[int, float]
    """By batch size."""
    memory_mb: float
    """What the process took more once the engine was imported and the network had run."""
    size_mb: float
    """Of the files that it loads."""
    top1_agreement: float
    """Share of the images with the class that torch gives them."""
    probability_difference: float
    """The largest of any probability, from torch's."""


class EngineResult(_Result):
    """What became of one engine."""

    engine: EngineName
    version: str = ""
    measurement: Measurement | None = None
    problem: str = ""
    """Why it could not be measured, or may not be chosen."""

    @property
    def is_eligible(self) -> bool:
        """Whether it may be chosen."""
        return self.measurement is not None and not self.problem


class OperatorTime(_Result):
    """One kernel of TVM's, and how far its output is from torch's."""

    name: str
    calls: int
    ms: float
    """Of all calls in one run, the median of several runs."""
    shape: tuple[int, ...]
    """Of its output."""
    difference: float | None
    """Largest difference from the closest of torch's tensors of that shape; None: none has it."""


class TvmInsight(_Result):
    """What TVM tells of the network, operator by operator."""

    version: str
    latency_ms: float
    probability_difference: float
    operators: tuple[OperatorTime, ...]
    """In the order in which they run."""
    first_deviation: str
    """Name of the first operator whose output is not torch's; empty: all are."""


class CompilationReport(_Result):
    """Everything that `compile_model` found."""

    architecture: str
    version: str
    """Of the bundle."""
    image_size: int
    machine: str
    threads: int
    rounds: int
    images: int
    """On which the engines were compared with torch."""
    objective: Objective
    results: tuple[EngineResult, ...]
    chosen: EngineName
    reason: str
    tvm: TvmInsight | None = None
    tvm_problem: str = ""
    """Why TVM tells nothing; empty where it does, or was not asked."""

    def metrics(self) -> dict[str, float]:
        """The figures of all engines, flat, for a tracker."""
        return {
            f"{name}_{result.engine}": value
            for result in self.results
            if (measured := result.measurement)
            for name, value in (
                ("latency_ms", measured.latency_ms),
                ("images_per_second", max(measured.images_per_second.values())),
                ("memory_mb", measured.memory_mb),
            )
        }

    def result(self, engine: EngineName) -> EngineResult:
        """Of one engine."""
        return next(result for result in self.results if result.engine == engine)


# --- agreement ---
# The pictures on which engines have to agree with torch.


def validation_images(dataset: Dataset, *, preprocessing: Preprocessing, most: int) -> Floats:
    """(N, 3, S, S) images of the validation split, evenly picked.

    Raises:
        UserError: there are none.
    """
    records = dataset.split("validation")
    return prepared([dataset.file(record) for record in records], how=preprocessing, most=most)


def prepared(files: Sequence[Path], *, how: Preprocessing, most: int) -> Floats:
    """(N, 3, S, S) of files, evenly picked.

    Raises:
        UserError: there are none, or one cannot be decoded.
    """
    if not files:
        raise UserError("there are no images to compare the engines on")
    positions = np.linspace(0, len(files) - 1, min(most, len(files)), dtype=int)
    return np.stack([prepare(files[position], how) for position in positions])


def generated_images(size: int, *, count: int) -> Floats:
    """(N, 3, S, S) waves of all lengths and noise, where no photographs are at hand."""
    generator = np.random.default_rng(0)
    axis = np.linspace(0, 2 * np.pi, size)
    x, y = np.meshgrid(axis, axis)
    images = []
    for _ in range(count):
        a, b, c = generator.uniform(0.5, 12, (3, 3))
        waves = np.sin(a[:, None, None] * x + b[:, None, None] * y + c[:, None, None])
        images.append(1.5 * waves + generator.normal(0, 0.3, (3, size, size)))
    return np.stack(images).astype(np.float32)
