"""Layers by recorded steps: gradients, updates, active units."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from darkroom.reports.charts.heat import Heat, heat_map
from darkroom.rules.evidence import Floats, Kind, Statistics, TensorSource

_MOST_ROWS, _MOST_COLUMNS = 160, 260
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
    chunks = np.array_split(
        np.arange(len(heat.columns)), min(_MOST_COLUMNS, len(heat.columns)) or 1
    )
    if len(heat.columns) <= _MOST_COLUMNS:
        return heat
    return Heat(
        heat.rows,
        columns=[heat.columns[chunk[0]] for chunk in chunks],
        values=np.stack([mean(heat.values[:, chunk], axis=1, log=log) for chunk in chunks], axis=1),
        broken=np.stack([heat.broken[:, chunk].any(axis=1) for chunk in chunks], axis=1),
    )


def _with_fewer_rows(heat: Heat, *, log: bool) -> tuple[Heat, str]:
    """Layers of the same part of the network taken together, where there are too many."""
    if len(heat.rows) <= _MOST_ROWS:
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
        if len(set(cut)) <= _MOST_ROWS:
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
