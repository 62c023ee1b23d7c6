"""The whole of a profile in tables: resources by percentile, time by phase and by epoch."""

from collections.abc import Iterator, Mapping

import numpy as np
from pydantic import BaseModel, ConfigDict

from darkroom.profiling.phases import BETWEEN_STEPS, STEP_PHASES
from darkroom.profiling.system import SystemSamples
from darkroom.rules.evidence import Evidence, Floats
from darkroom.rules.profiler_samples import percentile, total_cpu

_MEGABYTE = 1e6


class _Part(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, ser_json_inf_nan="constants"
    )


class ResourceUse(_Part):
    """How much of a resource was used, over the samples."""

    resource: str
    """Such as 'CPU' or 'GPU 0 memory'."""
    unit: str
    p50: float
    p90: float
    p95: float
    p99: float
    maximum: float


class PhaseTime(_Part):
    """What a phase took of the run."""

    phase: str
    seconds: float
    share: float
    """Of all phases' time."""


class EpochTime(_Part):
    """What an epoch took."""

    epoch: int
    """From 1."""
    steps: int
    images: int
    seconds: dict[str, float]
    """By phase."""


class ProfileSummary(_Part):
    """Where the time of a training went, and what it used of the machine."""

    seconds: float
    """In all phases together."""
    steps: int
    median_step_milliseconds: float
    """NaN without steps."""
    p95_step_milliseconds: float
    resources: tuple[ResourceUse, ...]
    """Empty where the machine was not sampled."""
    phases: tuple[PhaseTime, ...]
    """In the order of darkroom.profiling.phases."""
    epochs: tuple[EpochTime, ...]


def profile_summary(evidence: Evidence) -> ProfileSummary:
    """SageMaker's OverallSystemUsage and OverallFrameworkMetrics, as tables."""
    totals = phase_seconds(evidence)
    whole = sum(totals.values())
    steps = sum(evidence.steps.seconds.values(), np.zeros(len(evidence.steps)))
    return ProfileSummary(
        seconds=whole,
        steps=len(evidence.steps),
        median_step_milliseconds=1000 * percentile(steps, 50),
        p95_step_milliseconds=1000 * percentile(steps, 95),
        resources=tuple(_resources(evidence.system)),
        phases=tuple(
            PhaseTime(phase=phase, seconds=seconds, share=seconds / whole if whole else 0.0)
            for phase, seconds in totals.items()
        ),
        epochs=tuple(_epochs(evidence)),
    )


def phase_seconds(evidence: Evidence) -> dict[str, float]:
    """By phase, over the whole run."""
    between = evidence.evaluations.seconds if evidence.evaluations else {}
    return {
        **{phase: _sum(evidence.steps.seconds, phase) for phase in STEP_PHASES},
        **{phase: _sum(between, phase) for phase in BETWEEN_STEPS},
    }


def _sum(seconds: Mapping[str, Floats], phase: str) -> float:
    return float(np.nansum(seconds.get(phase, np.zeros(0))))


def _resources(samples: object) -> Iterator[ResourceUse]:
    if not isinstance(samples, SystemSamples) or not len(samples):
        return
    yield _use("CPU", total_cpu(samples), unit="%")
    yield _use("waiting for disks", samples.io_wait, unit="%")
    yield _use("memory of the machine", samples.memory, unit="%")
    yield _use("memory of the training", samples.process_memory / _MEGABYTE, unit="MB")
    yield _use("CPU of the training", samples.process_cpu, unit="% of a core")
    if np.isfinite(samples.loader_cpu).any():
        yield _use("CPU of data loading", samples.loader_cpu, unit="% of a core")
    rates = {
        "disk, read": samples.disk_read,
        "disk, written": samples.disk_write,
        "network, received": samples.network_in,
        "network, sent": samples.network_out,
    }
    for name, values in rates.items():
        yield _use(name, values / _MEGABYTE, unit="MB/s")
    for gpu in range(samples.gpu.shape[1] if samples.gpu.ndim == 2 else 0):
        yield _use(f"GPU {gpu}", samples.gpu[:, gpu], unit="%")
        yield _use(f"GPU {gpu} memory", samples.gpu_memory[:, gpu], unit="%")


def _use(resource: str, values: Floats, *, unit: str) -> ResourceUse:
    return ResourceUse(
        resource=resource,
        unit=unit,
        p50=percentile(values, 50),
        p90=percentile(values, 90),
        p95=percentile(values, 95),
        p99=percentile(values, 99),
        maximum=percentile(values, 100),
    )


def _epochs(evidence: Evidence) -> Iterator[EpochTime]:
    steps, between = evidence.steps, evidence.evaluations
    for epoch in np.unique(steps.epoch).tolist():
        rows = steps.epoch == epoch
        seconds = {phase: float(np.nansum(values[rows])) for phase, values in steps.seconds.items()}
        if between:
            ends = between.epoch == epoch
            seconds |= {
                phase: float(np.nansum(values[ends])) for phase, values in between.seconds.items()
            }
        yield EpochTime(
            epoch=epoch,
            steps=int(rows.sum()),
            images=int(steps.images[rows].sum()),
            seconds=seconds,
        )
