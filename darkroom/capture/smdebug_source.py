"""A trial of SageMaker Debugger as a TensorSource: one of ours, or anyone's.

Of a trial that holds whole tensors, such as smdebug's own hook writes, statistics are
computed here, tensor after tensor over its steps, so that no more than two values are in
memory at once.
"""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from darkroom.capture.smdebug_index import Place, read_index, read_value
from darkroom.capture.smdebug_writer import (
    GRADIENT_PREFIX,
    LABELS,
    LOGITS,
    LOSS,
    REDUCTIONS,
    STATISTICS_PREFIX,
    UNITS_PREFIX,
)
from darkroom.capture.table import TensorTable
from darkroom.rules.evidence import STATISTICS, Kind, Mode
from darkroom.rules.statistics import tensor_statistics, unit_shares

_REDUCTION = re.compile(r"^smdebug/reductions/(?P<reduction>[^/]+)/(?P<name>.+)$")
_CALL = re.compile(r"^(?P<module>.*)_(?P<way>input|output)_(?P<number>\d+)$")
_FIXED: Mapping[str, Kind] = {LOSS: "loss", LOGITS: "logits", LABELS: "labels"}
_COLUMNS = {reduction: column for column, reduction in REDUCTIONS.items()}

_Parts = dict[str, Place]
"""Of one tensor at one step: 'statistics', 'units', 'value', and smdebug's reductions."""


def read_smdebug_tensors(trial: Path) -> TensorTable:
    """The tensors of a trial; whole ones are loaded when they are asked for."""
    table = TensorTable()
    root = _root(trial)
    for (name, mode), steps in _by_tensor(trial).items():
        tensor = _our_name(name, root=root)
        if tensor is None:
            continue
        kind, ours = tensor
        earlier: NDArray[Any] | None = None
        for step, parts in sorted(steps.items()):
            statistics, earlier = _statistics(parts, earlier=earlier)
            table.add(
                ours,
                kind=kind,
                mode=mode,
                step=step,
                statistics=statistics,
                units=_units(parts, kind=kind),
                value=partial(read_value, parts["value"]) if "value" in parts else None,
            )
    return table


def _by_tensor(trial: Path) -> dict[tuple[str, Mode], dict[int, _Parts]]:
    found: dict[tuple[str, Mode], dict[int, _Parts]] = {}
    for place in read_index(trial):
        name, part = _part(place.name)
        found.setdefault((name, place.mode), {}).setdefault(place.step, {})[part] = place
    return found


def _part(name: str) -> tuple[str, str]:
    """The tensor that a record belongs to, and which part of it the record is."""
    if reduced := _REDUCTION.match(name):
        return reduced["name"], reduced["reduction"]
    for prefix, part in ((STATISTICS_PREFIX, "statistics"), (UNITS_PREFIX, "units")):
        if name.startswith(prefix):
            return name.removeprefix(prefix), part
    return name, "value"


def _root(trial: Path) -> str:
    """The class of the network: what stands before the names of parameters."""
    for place in read_index(trial):
        name, _ = _part(place.name)
        if name.startswith(GRADIENT_PREFIX):
            return name.removeprefix(GRADIENT_PREFIX).partition("_")[0]
    return ""


def _our_name(name: str, *, root: str) -> tuple[Kind, str] | None:
    """Kind and name of a tensor; None: nothing that rules know."""
    if name in _FIXED:
        return _FIXED[name], _FIXED[name]
    if name.startswith(GRADIENT_PREFIX):
        return "gradient", name.removeprefix(f"{GRADIENT_PREFIX}{root}_")
    if call := _CALL.match(name):
        return _of_module(call, root=root)
    if root and name.startswith(f"{root}_"):
        parameter = name.removeprefix(f"{root}_")
        return ("bias" if parameter.rsplit(".", 1)[-1] == "bias" else "weight"), parameter
    return None


def _of_module(call: re.Match[str], *, root: str) -> tuple[Kind, str] | None:
    if call["module"] == root:
        return ("input", "input") if call["way"] == "input" else None
    number = int(call["number"])
    name = f"{call['module']}:{number}" if number else call["module"]
    return ("activation" if call["way"] == "output" else "activation_input"), name


def _units(parts: _Parts, *, kind: Kind) -> NDArray[Any] | None:
    if "units" in parts:
        return read_value(parts["units"])
    if kind == "activation" and "value" in parts and (value := read_value(parts["value"])).ndim > 1:
        return unit_shares(value)
    return None


def _statistics(
    parts: _Parts, *, earlier: NDArray[Any] | None
) -> tuple[Sequence[float], NDArray[Any] | None]:
    """The row of statistics, and the value to compare the next step's with."""
    if "statistics" in parts:
        return [float(value) for value in read_value(parts["statistics"])], None
    if "value" in parts:
        value = read_value(parts["value"])
        if not value.size or value.dtype.kind not in "fiub":
            return (), None
        computed = tensor_statistics(value, previous=earlier)
        return [computed[name] for name in STATISTICS], value
    known = {
        _COLUMNS[part]: float(read_value(place))
        for part, place in parts.items()
        if part in _COLUMNS
    }
    return [known.get(name, np.nan) for name in STATISTICS], None
