"""Rules over the machine: CPU, input, GPU, memory."""

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from darkroom.debugging.rules.rule import NotApplicableError, Rule, always, now
from darkroom.debugging.rules.series import (
    gpu_samples,
    machine_plot,
    percentile,
    samples_of,
    total_cpu,
)
from darkroom.telemetry.evidence import Evidence, Floats
from darkroom.telemetry.findings import Hit
from darkroom.telemetry.system import SystemSamples

# --- CPU and input ---


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


MACHINE_RULES = (
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


# --- GPU ---
# GPUs that idle, fill up, or share their work unevenly: SageMaker's rules over samples.

_BINS = np.arange(0, 100, 2)
"""Edges of the histogram of a GPU's use: 0, 2, …, 98."""
_MIN_WINDOW = 10


def gpu_memory_increase(
    evidence: Evidence, *, increase: float = 10.0, patience: int = 100, window: int = 500
) -> list[Hit]:
    """The mean memory in use rose by more than `increase` from one window to the next.

    SageMaker's GPUMemoryIncrease; in its code 5 points, a patience of 1,000 and a window of
    10. Here the largest rise of the run counts, and the samples within the patience do not:
    torch takes its memory in the first steps. Where there are fewer than two windows,
    they are halves of what there is.

    Args:
        increase: percentage points of the GPU's memory.
        patience: samples after which it is looked at.
        window: samples.
    """
    samples = gpu_samples(evidence, patience=patience + 2 * _MIN_WINDOW)
    memory = samples.gpu_memory[patience:]
    size = min(window, len(memory) // 2)
    hits = []
    for gpu in range(memory.shape[1]):
        rises = _rises(memory[:, gpu], size=size)
        if rises.max(initial=0.0) > increase:
            figures: dict[str, float | str] = {
                "increase_points": float(rises.max()),
                "threshold_points": increase,
                "last_percent": float(memory[-1, gpu]),
            }
            plot = machine_plot(
                samples,
                lines={f"GPU {gpu}": samples.gpu_memory[:, gpu]},
                y_label="percent of memory",
                threshold=None,
            )
            hits.append(Hit(f"GPU {gpu}", None, figures, plot))
    return sorted(hits, key=lambda hit: -float(hit.figures["increase_points"]))


def low_gpu_utilization(
    evidence: Evidence,
    *,
    threshold_p95: float = 70.0,
    threshold_p5: float = 10.0,
    patience: int = 1000,
    window: int = 500,
) -> list[Hit]:
    """A GPU is hardly used (p95 below), or goes from idle to busy (p95 above, p5 below).

    SageMaker's LowGPUUtilization.

    Args:
        threshold_p95: percent.
        threshold_p5: percent.
        patience: samples that it takes.
        window: last samples that are looked at.
    """
    samples = gpu_samples(evidence, patience=patience)
    hits = []
    for gpu in range(samples.gpu.shape[1]):
        busy = samples.gpu[-window:, gpu]
        high, low = percentile(busy, 95), percentile(busy, 5)
        fluctuates = high > threshold_p95 and low < threshold_p5
        if high < threshold_p95 or fluctuates:
            figures: dict[str, float | str] = {
                "use": "fluctuates" if fluctuates else "low",
                "p95_percent": high,
                "p5_percent": low,
                "threshold_p95": threshold_p95,
                "threshold_p5": threshold_p5,
            }
            plot = machine_plot(
                samples,
                lines={f"GPU {gpu}": samples.gpu[:, gpu]},
                y_label="percent busy",
                threshold=threshold_p95,
            )
            hits.append(Hit(f"GPU {gpu}", None, figures, plot))
    return sorted(hits, key=lambda hit: float(hit.figures["p95_percent"]))


def load_balancing(evidence: Evidence, *, threshold: float = 0.5, patience: int = 10) -> list[Hit]:
    """Two GPUs are not used alike: the distance of their histograms of use.

    SageMaker's LoadBalancing: the square root of the Jensen–Shannon divergence, in nats, of
    histograms with edges 0, 2, …, 98; what is above counts into the last bin. 0 for equal
    ones, at most 0.83.

    Args:
        threshold: of the distance.
        patience: samples that it takes.
    """
    samples = gpu_samples(evidence, patience=patience, gpus=2)
    counts = [_histogram(samples.gpu[:, gpu]) for gpu in range(samples.gpu.shape[1])]
    if not all(count.sum() for count in counts):
        raise NotApplicableError("the GPUs do not tell how busy they are")
    hits = []
    for one, other in combinations(range(len(counts)), 2):
        distance = jensen_shannon_distance(counts[one], counts[other])
        if distance > threshold:
            figures: dict[str, float | str] = {"distance": distance, "threshold": threshold}
            hits.append(Hit(f"GPU {one} and GPU {other}", None, figures))
    return sorted(hits, key=lambda hit: -float(hit.figures["distance"]))


def jensen_shannon_distance(p: Floats, q: Floats) -> float:
    """√(½ KL(p‖m) + ½ KL(q‖m)), m = ½ (p + q), in nats; of counts. 0 … √ln 2.

    Lin, Divergence measures based on the Shannon entropy, IEEE Trans. Inf. Theory 37, 1991.
    """
    p, q = p / p.sum(), q / q.sum()
    mean = (p + q) / 2
    divergence = sum(
        float((one[one > 0] * np.log(one[one > 0] / mean[one > 0])).sum()) / 2 for one in (p, q)
    )
    return float(np.sqrt(max(0.0, divergence)))


def _histogram(use: Floats) -> Floats:
    known = use[np.isfinite(use)].clip(0, 98)
    return np.histogram(known, bins=_BINS)[0].astype(np.float64)


def _rises(values: Floats, *, size: int) -> Floats:
    """Mean of each window less that of the window before it."""
    sums = np.cumsum(np.concatenate([[0.0], np.nan_to_num(values)]))
    windows = (sums[size:] - sums[:-size]) / size
    rises: Floats = windows[size:] - windows[:-size]
    return rises


def _use_it(hit: Hit, evidence: Evidence) -> tuple[str, ...]:
    return (
        "see whether data_wait is found too: then the images come too slowly",
        f"raise training.batch_size{now(evidence, 'batch_size')}",
        "set training.mixed_precision to 'auto', so that more images fit",
        "train on the CPU, or on a smaller GPU",
    )


GPU_RULES = (
    Rule(
        name="gpu_memory_increase",
        title="The GPU's memory fills up",
        severity="warning",
        meaning="If it goes on, the training ends with an out-of-memory error.",
        advice=always(
            "keep numbers of a step by .item() or .detach(), not the tensors: those keep the "
            "whole graph",
            "lower training.batch_size if the memory is nearly full",
        ),
        evaluate=gpu_memory_increase,
        live=False,
    ),
    Rule(
        name="low_gpu_utilization",
        title="The GPU is hardly used",
        severity="note",
        meaning="It is paid for while it idles.",
        advice=_use_it,
        evaluate=low_gpu_utilization,
        live=False,
    ),
    Rule(
        name="load_balancing",
        title="GPUs share the work unevenly",
        severity="note",
        meaning="All wait for the slowest in every step.",
        advice=always(
            "run one process for each GPU (torchrun), with equal shares of the images",
            "see that nothing else runs on the busier GPU",
        ),
        evaluate=load_balancing,
        live=False,
    ),
)


# --- memory ---
# A training process whose memory grows without end; ours.

_MAX_POINTS = 60
_PARTS = 5
_STEADY = 0.3
_MEGABYTE = 1e6


def memory_growth(
    evidence: Evidence,
    *,
    threshold_percent: float = 5.0,
    minimum_megabytes: float = 48.0,
    warm_up_percent: float = 25.0,
    patience: int = 12,
) -> list[Hit]:
    """The resident memory of the training rises steadily, after the first epoch.

    The rise is that of the Theil–Sen line, the median slope of all pairs, over the samples
    that are judged (Sen, Estimates of the regression coefficient based on Kendall's tau,
    JASA 63, 1968). It is steady if each fifth's median lies above that of the fifth before,
    by 30 % of the mean difference or more: memory that is taken once, by a first evaluation
    or a cache that fills, does not rise in every fifth.

    Healthy trainings rose by at most 1.5 % after the warm-up, and not steadily (measured on
    recorded trainings of 12 to 90 s, sampled every 500 ms).

    Args:
        threshold_percent: of the memory in use after the warm-up.
        minimum_megabytes: that it rises by at least.
        warm_up_percent: of the samples, left out at least, beside the first epoch.
        patience: samples that it takes after the warm-up.
    """
    samples = samples_of(evidence)
    if len(evidence.steps) and evidence.steps.epoch.max() < 2:
        # Every image of the mapped cache that is read for the first time counts as its memory.
        raise NotApplicableError("memory grows in every first epoch, and there was no other")
    first = _warm_up(evidence, samples=samples, percent=warm_up_percent)
    time, memory = _known(samples.time[first:], samples.process_memory[first:])
    if len(memory) < patience:
        raise NotApplicableError(f"{len(memory)} samples after the warm-up; it takes {patience}")
    slope = theil_sen_slope(*_thinned(time, memory))
    rise = slope * float(time[-1] - time[0])
    start = float(np.median(memory[: max(1, len(memory) // 10)]))
    percent = 100 * rise / max(start, 1.0)
    if percent < threshold_percent or rise < minimum_megabytes * _MEGABYTE or not _steady(memory):
        return []
    figures: dict[str, float | str] = {
        "rise_megabytes": rise / _MEGABYTE,
        "rise_percent": percent,
        "threshold_percent": threshold_percent,
        "megabytes_a_minute": 60 * slope / _MEGABYTE,
        "last_megabytes": float(memory[-1]) / _MEGABYTE,
    }
    plot = machine_plot(
        samples,
        lines={"resident": samples.process_memory / _MEGABYTE},
        y_label="MB",
        threshold=None,
    )
    return [Hit("training process", None, figures, plot)]


def theil_sen_slope(x: Floats, y: Floats) -> float:
    """The median slope of all pairs of points; 0 of fewer than two."""
    one, other = np.triu_indices(len(x), k=1)
    runs = x[other] - x[one]
    slopes = (y[other] - y[one])[runs > 0] / runs[runs > 0]
    return float(np.median(slopes)) if len(slopes) else 0.0


def _warm_up(evidence: Evidence, *, samples: SystemSamples, percent: float) -> int:
    """Samples to leave out: the first epoch, with its evaluation, or a share."""
    share = int(np.ceil(len(samples) * percent / 100))
    later = evidence.steps.started[evidence.steps.epoch > 1]
    if not len(later):
        return share
    return max(share, int(np.searchsorted(samples.time, float(later[0]))))


def _known(time: Floats, memory: Floats) -> tuple[Floats, Floats]:
    known = np.isfinite(memory)
    return time[known], memory[known]


def _thinned(time: Floats, memory: Floats) -> tuple[Floats, Floats]:
    """Medians of neighbouring samples, where there are more than can be paired."""
    count = min(_MAX_POINTS, len(time))
    times, memories = np.array_split(time, count), np.array_split(memory, count)
    return (
        np.array([float(np.median(part)) for part in times]),
        np.array([float(np.median(part)) for part in memories]),
    )


def _steady(memory: Floats) -> bool:
    rises = np.diff([float(np.median(part)) for part in np.array_split(memory, _PARTS)])
    return bool((rises >= _STEADY * rises.mean()).all() and rises.mean() > 0)


MEMORY_RULES = (
    Rule(
        name="memory_growth",
        title="The training's memory grows steadily",
        severity="warning",
        meaning="Something is kept at every step; a long enough training will be killed for it.",
        advice=always(
            "keep numbers of a step by .item() or .detach(), not the tensors: those keep the "
            "whole graph",
            "look for lists, caches or hooks of your own that only ever grow",
            "compare with a run that records nothing (recording.backend: 'off')",
        ),
        evaluate=memory_growth,
        live=False,
    ),
)
