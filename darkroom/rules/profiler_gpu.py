"""GPUs that idle, fill up, or share their work unevenly: SageMaker's rules over samples."""

from itertools import combinations

import numpy as np

from darkroom.rules.advising import always, now
from darkroom.rules.evidence import Evidence, Floats
from darkroom.rules.findings import Hit
from darkroom.rules.profiler_samples import gpu_samples, machine_plot, percentile
from darkroom.rules.rule import NotApplicableError, Rule

_BINS = np.arange(0, 100, 2)
"""Edges of the histogram of a GPU's use: 0, 2, …, 98."""
_LEAST_WINDOW = 10


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
    samples = gpu_samples(evidence, patience=patience + 2 * _LEAST_WINDOW)
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


RULES = (
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
