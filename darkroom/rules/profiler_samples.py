"""What several rules ask of the samples of the machine."""

import numpy as np

from darkroom.profiling.system import SystemSamples
from darkroom.rules.evidence import Evidence, Floats
from darkroom.rules.findings import Plot
from darkroom.rules.rule import NotApplicableError
from darkroom.rules.series import line_plot


def samples_of(evidence: Evidence, *, patience: int = 1) -> SystemSamples:
    """The samples, if there are enough.

    Raises:
        NotApplicableError: none, or fewer than `patience`.
    """
    samples = evidence.system
    if not isinstance(samples, SystemSamples) or not len(samples):
        raise NotApplicableError("the machine was not sampled")
    if len(samples) < patience:
        raise NotApplicableError(f"{len(samples)} samples of the machine; it takes {patience}")
    return samples


def gpu_samples(evidence: Evidence, *, patience: int, gpus: int = 1) -> SystemSamples:
    """The same, of a machine with so many GPUs.

    Raises:
        NotApplicableError: no such GPUs, or too few samples.
    """
    samples = samples_of(evidence)
    count = samples.gpu.shape[1] if samples.gpu.ndim == 2 else 0
    if count < gpus:
        raise NotApplicableError("no GPU" if not count else f"{count} GPU; it takes {gpus}")
    return samples_of(evidence, patience=patience)


def total_cpu(samples: SystemSamples) -> Floats:
    """(n,) percent of all cores."""
    return means(samples.cpu)


def means(table: Floats) -> Floats:
    """(n,) of an (n, k) table, by row, of what is known; NaN where nothing is."""
    known = np.isfinite(table)
    sums = np.where(known, table, 0.0).sum(axis=1)
    counts = known.sum(axis=1)
    found: Floats = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return found


def percentile(values: Floats, percent: float) -> float:
    """Of what is known, interpolated linearly; NaN where nothing is."""
    known = values[np.isfinite(values)]
    return float(np.percentile(known, percent)) if len(known) else float("nan")


def machine_plot(
    samples: SystemSamples, *, lines: dict[str, Floats], y_label: str, threshold: float | None
) -> Plot:
    """Over the time since the first of the samples."""
    seconds = samples.time - samples.time[0]
    return line_plot(seconds, lines=lines, x_label="seconds", y_label=y_label, threshold=threshold)
