"""What a run used, in the few figures that advice is computed from."""

from dataclasses import dataclass

import numpy as np

from darkroom.profiling.summary import phase_seconds
from darkroom.profiling.system import SystemSamples
from darkroom.rules.evidence import Evidence
from darkroom.rules.profiler_samples import means, total_cpu


@dataclass(frozen=True)
class MeasuredUse:
    """Of a training; None where it was not measured."""

    seconds: float
    """From the start to the end of the last epoch; interruptions are left out."""
    phases: dict[str, float]
    """Seconds by phase."""
    cores: int
    """0 where the machine was not sampled."""
    cpu: float | None
    """Share of all cores' time that was used, by whatever."""
    own_cores: float | None
    """Cores that the training kept busy, on average."""
    gpu: float | None
    """Share of the GPUs' time; None without a GPU."""
    memory_gib: float | None
    """The most that the training had resident."""


def measured_use(evidence: Evidence) -> MeasuredUse:
    """Of the whole run."""
    phases = phase_seconds(evidence)
    steps, started = evidence.steps, evidence.facts.started
    start_up = max(0.0, float(steps.started[0]) - started) if len(steps) and started else 0.0
    samples = evidence.system
    if not isinstance(samples, SystemSamples) or not len(samples):
        return MeasuredUse(sum(phases.values()) + start_up, phases, 0, None, None, None, None)
    cpu, own = _mean(total_cpu(samples)), _mean(samples.process_cpu)
    gpu, memory = _mean(means(samples.gpu)), samples.process_memory
    return MeasuredUse(
        seconds=sum(phases.values()) + start_up,
        phases=phases,
        cores=samples.cpu.shape[1],
        cpu=None if cpu is None else cpu / 100,
        own_cores=None if own is None else own / 100,
        gpu=None if gpu is None else gpu / 100,
        memory_gib=float(np.nanmax(memory)) / 2**30 if np.isfinite(memory).any() else None,
    )


def _mean(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None
