"""Layers by recorded steps: gradients, updates, active units."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from darkroom.debugging.profiling.summary import measured_use
from darkroom.debugging.rules.labels import suspects as worst_margins
from darkroom.reports.chart_axes import HALF_WIDTH
from darkroom.reports.charts import Band, Heat, Line, heat_map, line_chart
from darkroom.telemetry.evidence import (
    Evidence,
    Floats,
    ImageMargins,
    Kind,
    Statistics,
    TensorSource,
)
from darkroom.telemetry.system import SystemSamples

# --- health ---

_MAX_ROWS, _MAX_COLUMNS = 160, 260
_DECADES_SHOWN = 8
_NEXT_TO_NOTHING = 1e-12


@dataclass(frozen=True)
class Health:
    """A map, or why there is none."""

    title: str
    reading: str
    """How it is read."""
    chart: Markup
    grouped: str = ""
    """How rows were put together, where there are too many."""


def health_maps(tensors: TensorSource) -> list[Health]:
    """Of what was recorded; a map without a chart has nothing to show."""
    weights = tensors.names("weight")
    with_gradient = list(tensors.names("gradient"))
    of_weights = [name for name in with_gradient if name in set(weights)] or with_gradient
    gradients = _of(tensors, names=of_weights, kind="gradient")
    updates = _of(tensors, names=weights, kind="weight")
    active = _of(tensors, names=tensors.names("activation"), kind="activation")
    return [
        _gradients(gradients),
        _updates(updates),
        _active(active),
    ]


def _gradients(series: Mapping[str, Statistics]) -> Health:
    heat, grouped = _heat(series, column="abs_mean", log=True)
    low, high = _range(heat.values)
    return Health(
        "Gradients",
        "Mean size of each layer's gradient, the network's input at the top. A layer that darkens "
        "towards the top learns little: gradients vanish. Red: not finite.",
        _drawn(heat, low=low, high=high, log=True, unit="mean |gradient|"),
        grouped,
    )


def _updates(series: Mapping[str, Statistics]) -> Health:
    heat, grouped = _heat(series, column="update_ratio", log=True)
    return Health(
        "Updates",
        "How far each layer's weights moved between two looks, in proportion to their size. "
        "Dark rows stand still; yellow ones are overwritten. The colours mean the same in every "
        "report.",
        _drawn(heat, low=1e-6, high=1.0, log=True, unit="mean |Δw| / |w|"),
        grouped,
    )


def _active(series: Mapping[str, Statistics]) -> Health:
    active = {
        name: Statistics(one.steps, {"active": 1.0 - one["zero_share"], **_broken_columns(one)})
        for name, one in series.items()
    }
    heat, grouped = _heat(active, column="active", log=False)
    return Health(
        "Active units",
        "Share of each activation's outputs that are not zero. About half is usual after ReLU; a "
        "row that goes dark dies. Functions such as SiLU and GELU are hardly ever zero.",
        _drawn(heat, low=0.0, high=1.0, log=False, unit="not zero"),
        grouped,
    )


def _broken_columns(one: Statistics) -> dict[str, Floats]:
    return {name: one[name] for name in ("nan_share", "infinite_share") if name in one.columns}


def _of(tensors: TensorSource, *, names: Sequence[str], kind: Kind) -> dict[str, Statistics]:
    found = {name: tensors.statistics(name, kind=kind) for name in names}
    return {name: one for name, one in found.items() if len(one.steps)}


def _heat(series: Mapping[str, Statistics], *, column: str, log: bool) -> tuple[Heat, str]:
    steps = np.unique(np.concatenate([*(one.steps for one in series.values()), np.array([])]))
    values = np.full((len(series), len(steps)), np.nan)
    broken = np.zeros(values.shape, dtype=np.bool_)
    for row, one in enumerate(series.values()):
        at = np.searchsorted(steps, one.steps)
        values[row, at] = one[column]
        broken[row, at] = sum(_broken_columns(one).values(), np.zeros(len(at))) > 0
    whole = Heat(list(series), columns=_step_names(steps), values=values, broken=broken)
    grouped, told = _with_fewer_rows(_with_fewer_columns(whole, log=log), log=log)
    return grouped, told


def _step_names(steps: NDArray[np.generic]) -> list[str]:
    return [f"{int(step):,}" for step in steps.tolist()]


def _with_fewer_columns(heat: Heat, *, log: bool) -> Heat:
    """Neighbouring looks taken together, where there are more than can be told apart."""
    chunks = np.array_split(np.arange(len(heat.columns)), min(_MAX_COLUMNS, len(heat.columns)) or 1)
    if len(heat.columns) <= _MAX_COLUMNS:
        return heat
    return Heat(
        heat.rows,
        columns=[heat.columns[chunk[0]] for chunk in chunks],
        values=np.stack([mean(heat.values[:, chunk], axis=1, log=log) for chunk in chunks], axis=1),
        broken=np.stack([heat.broken[:, chunk].any(axis=1) for chunk in chunks], axis=1),
    )


def _with_fewer_rows(heat: Heat, *, log: bool) -> tuple[Heat, str]:
    """Layers of the same part of the network taken together, where there are too many."""
    if len(heat.rows) <= _MAX_ROWS:
        return heat, ""
    names = _fitting(heat.rows)
    groups = {
        name: [i for i, own in enumerate(names) if own == name] for name in dict.fromkeys(names)
    }
    together = Heat(
        list(groups),
        columns=heat.columns,
        values=np.stack([mean(heat.values[rows], axis=0, log=log) for rows in groups.values()]),
        broken=np.stack([heat.broken[rows].any(axis=0) for rows in groups.values()]),
    )
    told = f"{len(heat.rows)} tensors in {len(groups)} rows: each row is the mean of a part."
    return together, told


def _fitting(rows: Sequence[str]) -> list[str]:
    """Each row's name cut as little as makes few enough of them."""
    deepest = max(row.count(".") for row in rows) + 1
    cut = [".".join(row.split(".")[:depth]) for depth in (1,) for row in rows]
    for depth in range(deepest, 0, -1):
        cut = [".".join(row.split(".")[:depth]) for row in rows]
        if len(set(cut)) <= _MAX_ROWS:
            break
    return cut


def mean(values: Floats, *, axis: int, log: bool) -> Floats:
    """Of the finite values, the geometric one where `log`; NaN where there are none."""
    known = np.isfinite(values)
    safe = np.where(known, values, 1.0)
    measured = np.log(np.maximum(safe, _NEXT_TO_NOTHING)) if log else safe
    count = known.sum(axis=axis)
    result = np.full(count.shape, np.nan)
    np.divide((measured * known).sum(axis=axis), count, out=result, where=count > 0)
    return np.exp(result) if log else result


def _range(values: Floats) -> tuple[float, float]:
    """Of the colours: all values, but at most some decades."""
    positive = values[np.isfinite(values) & (values > 0)]
    if not len(positive):
        return 1e-8, 1.0
    high = float(np.percentile(positive, 99.5))
    low = max(float(np.percentile(positive, 0.5)), high / 10**_DECADES_SHOWN)
    return min(low, high / 10), high


def _drawn(heat: Heat, *, low: float, high: float, log: bool, unit: str) -> Markup:
    if not (np.isfinite(heat.values).any() or heat.broken.any()):
        return Markup("")
    return heat_map(
        heat, low=low, high=high, log=log, unit=unit, column_label="step", label=f"{unit} by layer"
    )


# --- machine ---
# The machine over the training.

_MAX_SAMPLES = 300
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
    if len(values) <= _MAX_SAMPLES:
        return values
    size = -(-len(values) // _MAX_SAMPLES)
    chunks = np.split(values, range(size, len(values), size))
    return np.array([float(mean(chunk, axis=0, log=False)) for chunk in chunks])


# --- recorded ---
# What was recorded and what not; images whose labels may be wrong.

Thumbnails = Callable[[str], str | None]

_SUSPECTS = 24
_LEARNED = 0.5
"""Share of the images with a positive margin, below which all labels look wrong."""
_KINDS: dict[Kind, str] = {
    "gradient": "gradients",
    "weight": "weights",
    "bias": "biases",
    "activation": "activations",
    "activation_input": "inputs of activations",
    "logits": "logits",
    "labels": "labels of the batch",
    "input": "the network's input",
    "loss": "losses",
}


@dataclass(frozen=True)
class Suspect:
    """An image that the network kept seeing as another class."""

    path: str
    label: str
    predicted: str
    margin: float
    picture: str | None


def suspects(evidence: Evidence, *, thumbnails: Thumbnails | None) -> list[Suspect]:
    """Those whose margins are far below the usual, the lowest first.

    None where little was learned: then the margins tell of the network, not of the labels.
    """
    margins = evidence.margins
    if margins is None or not _has_learned(margins):
        return []
    shown = [int(i) for i in worst_margins(margins)[:_SUSPECTS]]
    classes = evidence.facts.classes
    return [_suspect(i, margins=margins, classes=classes, thumbnails=thumbnails) for i in shown]


def _has_learned(margins: ImageMargins) -> bool:
    seen = margins.margin[np.isfinite(margins.margin)]
    return len(seen) > 0 and float((seen > 0).mean()) >= _LEARNED


def recorded(evidence: Evidence, *, has_operators: bool) -> list[tuple[str, str, bool]]:
    """What, how much of it, and whether there is any."""
    steps, epochs = len(evidence.steps), len(evidence.epochs)
    rows = [
        ("steps", f"{steps:,} steps: loss, learning rate, time by phase", steps > 0),
        ("epochs", f"{epochs:,} epochs: metrics of the validation images", epochs > 0),
        *(
            _tensor_row(kind, label=label, source=evidence.tensors)
            for kind, label in _KINDS.items()
        ),
        _system_row(evidence.system),
        _margin_row(evidence.margins),
        ("operators", "time of each operator in the profiled steps", has_operators),
    ]
    return [(name, told if known else "not recorded", known) for name, told, known in rows]


def _suspect(
    index: int, *, margins: ImageMargins, classes: tuple[str, ...], thumbnails: Thumbnails | None
) -> Suspect:
    path = margins.paths[index]
    return Suspect(
        path=path,
        label=_class_name(int(margins.label[index]), classes=classes),
        predicted=_class_name(int(margins.predicted[index]), classes=classes),
        margin=float(margins.margin[index]),
        picture=thumbnails(path) if thumbnails else None,
    )


def _class_name(index: int, *, classes: tuple[str, ...]) -> str:
    return classes[index] if 0 <= index < len(classes) else "unknown"


def _tensor_row(kind: Kind, *, label: str, source: TensorSource) -> tuple[str, str, bool]:
    names = source.names(kind)
    if not names:
        return label, "", False
    steps = source.statistics(names[0], kind=kind).steps
    evaluations = source.statistics(names[0], kind=kind, mode="eval").steps
    told = f"{len(names):,} tensors, {len(steps):,} looks while training"
    return (
        label,
        told + (f", {len(evaluations):,} while evaluating" if len(evaluations) else ""),
        True,
    )


def _system_row(system: object | None) -> tuple[str, str, bool]:
    if not isinstance(system, SystemSamples) or not len(system.time):
        return "the machine", "", False
    gpus = system.gpu.shape[1] if system.gpu.ndim > 1 else 0
    cores = system.cpu.shape[1] if system.cpu.ndim > 1 else 0
    told = f"{len(system.time):,} samples of {cores} cores"
    return "the machine", told + (f" and {gpus} GPUs" if gpus else ", no GPU"), True


def _margin_row(margins: ImageMargins | None) -> tuple[str, str, bool]:
    seen = int(np.isfinite(margins.margin).sum()) if margins is not None else 0
    return "margins of the training images", f"{seen:,} images seen", seen > 0
