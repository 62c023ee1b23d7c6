"""The whole of a profile in tables: resources by percentile, time by phase and by epoch."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict

from darkroom.debugging.rules.series import means, percentile, total_cpu
from darkroom.telemetry.evidence import Evidence, Floats
from darkroom.telemetry.recording import BETWEEN_STEPS, STEP_PHASES
from darkroom.telemetry.system import SystemSamples

# --- summary ---

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
    """In the order of darkroom.telemetry.recording."""
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


# --- measured use ---
# What a run used, in the few figures that advice is computed from.


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
