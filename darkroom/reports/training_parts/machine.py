"""The machine over the training."""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from darkroom.profiling.measured_use import measured_use
from darkroom.profiling.system import SystemSamples
from darkroom.reports.charts.lines import Band, Line, line_chart
from darkroom.reports.charts.svg import HALF_WIDTH
from darkroom.reports.training_parts.health import mean
from darkroom.rules.evidence import Evidence, Floats

_MOST_SAMPLES = 300
_SECONDS_SHOWN = 240.0
_GIGABYTE, _MEGABYTE = 1e9, 1e6
_FULL, _SHARED = 0.9, 0.25
"""Shares of all cores' time: used by whatever; used by other programs alone."""


def machine_charts(system: object | None) -> list[tuple[str, Markup]]:
    """CPU, memory, disk, network, GPU by title; none without samples."""
    if not isinstance(system, SystemSamples) or not len(system.time):
        return []
    x, label = _clock(system.time)
    charts = [
        ("CPU", _cpu(system, x=x, x_label=label)),
        ("CPU of the training", _own_cpu(system, x=x, x_label=label)),
        ("Memory of the machine", _memory(system, x=x, x_label=label)),
        ("Memory of the training", _own_memory(system, x=x, x_label=label)),
        *_gpus(system, x=x, x_label=label),
        ("Disk", _disk(system, x=x, x_label=label)),
        ("Network", _network(system, x=x, x_label=label)),
    ]
    return [(name, chart) for name, chart in charts if chart]


def shared_machine(evidence: Evidence) -> str:
    """That other programs took so much of a full CPU that times say little; empty: they did not."""
    use = measured_use(evidence)
    if use.cpu is None or use.own_cores is None or not use.cores:
        return ""
    others = use.cpu * use.cores - use.own_cores
    if use.cpu < _FULL or others < _SHARED * use.cores:
        return ""
    return (
        f"Other programs kept {others:.1f} of {use.cores} cores busy, this training "
        f"{use.own_cores:.1f}. Alone on the machine it would have been faster: take times, "
        "speeds and costs of this page with care."
    )


def _clock(time: Floats) -> tuple[Floats, str]:
    since = time - time[0]
    if since[-1] <= _SECONDS_SHOWN:
        return since, "seconds since the start"
    return since / 60, "minutes since the start"


def _cpu(system: SystemSamples, *, x: Floats, x_label: str) -> Markup:
    cores = system.cpu.shape[1] if system.cpu.ndim > 1 else 0
    if not cores:
        return Markup("")
    low, high = (_thin(values) for values in _extremes(system.cpu))
    band = Band("idlest to busiest core", x=_thin(x), low=low, high=high, colour="blue")
    lines = [
        _line(f"mean of {cores} cores", x=x, y=mean(system.cpu, axis=1, log=False), colour="blue"),
        _line("waiting for disks", x=x, y=system.io_wait, colour="orange"),
    ]
    return _percent(lines, x_label=x_label, label="CPU", bands=[band])


def _extremes(cores: Floats) -> tuple[Floats, Floats]:
    """Of each row's finite values; NaN where there are none."""
    known = np.isfinite(cores)
    low = np.where(known, cores, np.inf).min(axis=1)
    high = np.where(known, cores, -np.inf).max(axis=1)
    return np.where(np.isfinite(low), low, np.nan), np.where(np.isfinite(high), high, np.nan)


def _own_cpu(system: SystemSamples, *, x: Floats, x_label: str) -> Markup:
    lines = [
        _line("with its children", x=x, y=system.process_cpu, colour="blue"),
        _line("data loading workers", x=x, y=system.loader_cpu, colour="orange"),
    ]
    return _chart(lines, x_label=x_label, y_label="% of a core", label="CPU of the training")


def _memory(system: SystemSamples, *, x: Floats, x_label: str) -> Markup:
    lines = [_line("", x=x, y=system.memory, colour="purple")]
    return _percent(lines, x_label=x_label, label="Memory in use")


def _own_memory(system: SystemSamples, *, x: Floats, x_label: str) -> Markup:
    own = [_line("", x=x, y=system.process_memory / _GIGABYTE, colour="green")]
    return _chart(own, x_label=x_label, y_label="GB", label="Memory of the training")


def _gpus(system: SystemSamples, *, x: Floats, x_label: str) -> list[tuple[str, Markup]]:
    if system.gpu.ndim < 2 or not system.gpu.shape[1]:
        return []
    return [
        (
            f"GPU {index}",
            _percent(
                [
                    _line("busy", x=x, y=system.gpu[:, index], colour="green"),
                    _line("memory", x=x, y=system.gpu_memory[:, index], colour="purple"),
                ],
                x_label=x_label,
                label=f"GPU {index}",
            ),
        )
        for index in range(system.gpu.shape[1])
    ]


def _disk(system: SystemSamples, *, x: Floats, x_label: str) -> Markup:
    lines = [
        _line("read", x=x, y=system.disk_read / _MEGABYTE, colour="blue"),
        _line("written", x=x, y=system.disk_write / _MEGABYTE, colour="orange"),
    ]
    return _chart(lines, x_label=x_label, y_label="MB/s", label="Disk")


def _network(system: SystemSamples, *, x: Floats, x_label: str) -> Markup:
    lines = [
        _line("received", x=x, y=system.network_in / _MEGABYTE, colour="blue"),
        _line("sent", x=x, y=system.network_out / _MEGABYTE, colour="orange"),
    ]
    return _chart(lines, x_label=x_label, y_label="MB/s", label="Network")


def _percent(
    lines: Sequence[Line], *, x_label: str, label: str, bands: Sequence[Band] = ()
) -> Markup:
    return _chart(lines, x_label=x_label, y_label="%", label=label, high=100.0, bands=bands)


def _chart(
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    label: str,
    high: float | None = None,
    bands: Sequence[Band] = (),
) -> Markup:
    known = [line for line in lines if np.isfinite(line.y).any()]
    if not known:
        return Markup("")
    return line_chart(
        known,
        x_label=x_label,
        y_label=y_label,
        label=label,
        width=HALF_WIDTH,
        height=180,
        whole=False,
        low=0.0,
        high=high,
        bands=bands,
    )


def _line(label: str, *, x: Floats, y: Floats, colour: str) -> Line:
    return Line(label, x=_thin(x), y=_thin(y), colour=colour)


def _thin(values: Floats) -> Floats:
    """Means of neighbouring samples, where there are more than can be told apart."""
    if len(values) <= _MOST_SAMPLES:
        return values
    size = -(-len(values) // _MOST_SAMPLES)
    chunks = np.split(values, range(size, len(values), size))
    return np.array([float(mean(chunk, axis=0, log=False)) for chunk in chunks])
