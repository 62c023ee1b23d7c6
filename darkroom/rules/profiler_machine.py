"""Which part of the machine holds the others up: SageMaker's rules over samples.

Their documentation's formulas and defaults, 2023. A snapshot is one sample here. They judge
GPUs; a training on a CPU is judged by profiler_steps.
"""

import numpy as np
from numpy.typing import NDArray

from darkroom.profiling.system import SystemSamples
from darkroom.rules.advising import always, now
from darkroom.rules.evidence import Evidence, Floats
from darkroom.rules.findings import Hit
from darkroom.rules.profiler_samples import (
    gpu_samples,
    machine_plot,
    percentile,
    samples_of,
    total_cpu,
)
from darkroom.rules.rule import NotApplicableError, Rule


def batch_size(
    evidence: Evidence,
    *,
    cpu_threshold_p95: float = 70.0,
    gpu_threshold_p95: float = 70.0,
    gpu_memory_threshold_p95: float = 70.0,
    patience: int = 100,
    window: int = 500,
) -> list[Hit]:
    """A GPU, its memory and the CPU are all below a threshold, 95 % of the time.

    SageMaker's BatchSize; in its code the patience is 1,000.

    Args:
        cpu_threshold_p95: percent, of all cores.
        gpu_threshold_p95: percent busy.
        gpu_memory_threshold_p95: percent in use.
        patience: samples that it takes.
        window: last samples that are looked at.
    """
    samples = gpu_samples(evidence, patience=patience)
    cpu = percentile(total_cpu(samples)[-window:], 95)
    hits = []
    for gpu in range(samples.gpu.shape[1]):
        busy = percentile(samples.gpu[-window:, gpu], 95)
        memory = percentile(samples.gpu_memory[-window:, gpu], 95)
        if (
            cpu < cpu_threshold_p95
            and busy < gpu_threshold_p95
            and memory < gpu_memory_threshold_p95
        ):
            figures: dict[str, float | str] = {
                "gpu_p95_percent": busy,
                "gpu_memory_p95_percent": memory,
                "cpu_p95_percent": cpu,
                "gpu_threshold_p95": gpu_threshold_p95,
            }
            hits.append(Hit(f"GPU {gpu}", None, figures))
    return hits


def cpu_bottleneck(
    evidence: Evidence,
    *,
    threshold: float = 50.0,
    gpu_threshold: float = 10.0,
    cpu_threshold: float = 90.0,
    patience: int = 100,
) -> list[Hit]:
    """A GPU idles while a core is busy, in more than `threshold` % of the samples.

    SageMaker's CPUBottleneck; in its code the patience is 1,000.

    Args:
        threshold: percent of the samples.
        gpu_threshold: percent; a GPU below it idles.
        cpu_threshold: percent; a core above it is busy.
        patience: samples that it takes.
    """
    samples = gpu_samples(evidence, patience=patience)
    busy = np.any(samples.cpu > cpu_threshold, axis=1)
    return _held_up(samples, by=busy, gpu_threshold=gpu_threshold, threshold=threshold, cause="cpu")


def io_bottleneck(
    evidence: Evidence,
    *,
    threshold: float = 50.0,
    gpu_threshold: float = 70.0,
    io_threshold: float = 50.0,
    patience: int = 1000,
) -> list[Hit]:
    """A GPU idles while cores wait for disks, in more than `threshold` % of the samples.

    SageMaker's IOBottleneck; in its code the GPU's threshold is 10.

    Args:
        threshold: percent of the samples.
        gpu_threshold: percent; a GPU below it idles.
        io_threshold: percent of all cores' time.
        patience: samples that it takes.
    """
    samples = gpu_samples(evidence, patience=patience)
    waiting = samples.io_wait > io_threshold
    return _held_up(
        samples, by=waiting, gpu_threshold=gpu_threshold, threshold=threshold, cause="io_wait"
    )


def dataloader(
    evidence: Evidence, *, min_threshold: float = 70.0, max_threshold: float = 200.0
) -> list[Hit]:
    """Data loading processes are fewer than 70 % of the cores, or more than 200 %.

    SageMaker's Dataloader, of its library's configuration alone.

    Args:
        min_threshold: percent of the cores.
        max_threshold: percent of the cores.
    """
    samples = samples_of(evidence)
    loaders = samples.loaders[samples.loaders > 0]
    cores = samples.cpu.shape[1]
    if not len(loaders) or not cores:
        raise NotApplicableError("no data loading processes")
    percent = 100 * float(np.median(loaders)) / cores
    if min_threshold <= percent <= max_threshold:
        return []
    figures: dict[str, float | str] = {
        "loading_processes": float(np.median(loaders)),
        "cores": float(cores),
        "percent_of_cores": percent,
        "min_threshold": min_threshold,
        "max_threshold": max_threshold,
    }
    return [Hit("", None, figures)]


def _held_up(
    samples: SystemSamples,
    *,
    by: NDArray[np.bool_] | np.bool_,
    gpu_threshold: float,
    threshold: float,
    cause: str,
) -> list[Hit]:
    idle = np.any(samples.gpu < gpu_threshold, axis=1)
    percent = 100 * float(np.mean(idle & by))
    if not percent > threshold:
        return []
    figures: dict[str, float | str] = {
        "samples_percent": percent,
        "threshold_percent": threshold,
        "gpu_threshold_percent": gpu_threshold,
    }
    lines: dict[str, Floats] = {"GPUs": samples.gpu.min(axis=1)}
    lines |= {"busiest core": samples.cpu.max(axis=1)} if cause == "cpu" else {}
    lines |= {"waiting for disks": samples.io_wait} if cause == "io_wait" else {}
    plot = machine_plot(samples, lines=lines, y_label="percent", threshold=None)
    return [Hit("", None, figures, plot)]


def _larger_batches(hit: Hit, evidence: Evidence) -> tuple[str, ...]:
    return (
        f"double training.batch_size{now(evidence, 'batch_size')}, and training.learning_rate "
        "by the square root of it",
        "take a smaller instance type: the costs below say what it saves",
    )


RULES = (
    Rule(
        name="batch_size",
        title="Batches are too small for the machine",
        severity="note",
        meaning="GPU, its memory and CPU have room: larger batches would take hardly longer each.",
        advice=_larger_batches,
        evaluate=batch_size,
        live=False,
    ),
    Rule(
        name="cpu_bottleneck",
        title="The GPU waits for the CPU",
        severity="warning",
        meaning="A core prepares data or starts kernels without pause, and the GPU idles.",
        advice=always(
            "store the images at the size they are trained at (model.resize_size)",
            "take an instance type with more cores for each GPU",
        ),
        evaluate=cpu_bottleneck,
        live=False,
    ),
    Rule(
        name="io_bottleneck",
        title="The GPU waits for the disk",
        severity="warning",
        meaning="Images do not come from the disk as fast as the GPU could learn from them.",
        advice=always(
            "give the machine memory enough for the decoded images, so that they are read once",
            "put the data and the cache on a faster disk (SageMaker: a larger volume)",
        ),
        evaluate=io_bottleneck,
        live=False,
    ),
    Rule(
        name="dataloader",
        title="The number of data loading processes does not fit the cores",
        severity="note",
        meaning="Too few leave cores idle; too many take them from each other.",
        advice=always("run as many loading processes as there are cores"),
        evaluate=dataloader,
        live=False,
    ),
)
