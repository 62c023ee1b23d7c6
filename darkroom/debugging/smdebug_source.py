"""A trial of SageMaker Debugger as a TensorSource: one of ours, or anyone's.

Of a trial that holds whole tensors, such as smdebug's own hook writes, statistics are
computed here, tensor after tensor over its steps: each value is read once, and only a sample
of it is kept, to compare the next one with.
"""

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from darkroom.debugging.smdebug_format import (
    GRADIENT_PREFIX,
    LABELS,
    LOGITS,
    LOSS,
    REDUCTIONS,
    STATISTICS_PREFIX,
    UNITS_PREFIX,
    decode_record,
)
from darkroom.telemetry.evidence import STATISTICS, Kind, Mode, parameter_kind
from darkroom.telemetry.tensors import Sample, TensorTable, tensor_statistics, unit_shares

# --- smdebug index ---
# The files of a smdebug trial: which tensor lies where, and its value.
#
# Read without smdebug, so a trial can be judged where smdebug cannot be installed.

_MODES: dict[str, Mode] = {"TRAIN": "train", "EVAL": "eval", "GLOBAL": "train"}
"""A hook that was never told its mode says GLOBAL: the training, in all likelihood."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one tensor of one step lies."""

    name: str
    """As smdebug calls it."""
    mode: Mode
    step: int
    """Of the mode."""
    file: Path
    start: int
    length: int
    """Bytes."""


def read_index(trial: Path) -> Iterator[Place]:
    """Every tensor of a trial, step by step; steps that are not whole are left out."""
    for path in sorted(trial.glob("index/*/*.json")):
        yield from _places(path, trial=trial)


def read_value(place: Place) -> NDArray[Any] | None:
    """The tensor that lies at a place; None where it is of no known type, or cannot be read."""
    try:
        # Not mapped into memory: a file that becomes shorter meanwhile would end the process.
        with place.file.open("rb") as file:
            file.seek(place.start)
            return decode_record(file.read(place.length))
    except (OSError, ValueError):
        return None


def _places(path: Path, *, trial: Path) -> list[Place]:
    """Those of one step; none, where its index is torn or its tensors are missing."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        meta = content["meta"]
        mode, step = _MODES.get(meta["mode"]), int(meta["mode_step"])
        file = trial / meta["event_file_name"]
        if mode is None or not file.is_file():
            return []
        return [
            Place(
                sys.intern(tensor["tensorname"]),  # once in memory, however many steps there are
                mode=mode,
                step=step,
                file=file,
                start=int(tensor["start_idx"]),
                length=max(int(tensor["length"]), 0),
            )
            for tensor in content.get("tensor_payload") or ()
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


# --- smdebug source ---

_REDUCTION = re.compile(r"^smdebug/reductions/(?P<reduction>[^/]+)/(?P<name>.+)$")
_CALL = re.compile(r"^(?P<module>.*)_(?P<way>input|output)_(?P<number>\d+)$")
_FIXED: Mapping[str, Kind] = {LOSS: "loss", LOGITS: "logits", LABELS: "labels"}
_COLUMNS = {reduction: column for column, reduction in REDUCTIONS.items()}

_Parts = dict[str, Place]
"""Of one tensor at one step: 'statistics', 'units', 'value', and smdebug's reductions."""


class _Measured(NamedTuple):
    """One tensor at one step."""

    statistics: Sequence[float]
    """In the order of STATISTICS; empty: unknown."""
    units: NDArray[Any] | None
    sample: Sample | None
    """To compare the next step's value with."""
    is_readable: bool
    """False where the whole tensor turned out to be of no known type, or torn."""


def read_smdebug_tensors(trial: Path) -> TensorTable:
    """The tensors of a trial; whole ones are loaded when they are asked for."""
    table = TensorTable()
    places = list(read_index(trial))
    root = _root(places)
    for (name, mode), steps in _by_tensor(places).items():
        tensor = _our_name(name, root=root)
        if tensor is None:
            continue
        kind, ours = tensor
        earlier: Sample | None = None
        for step, parts in sorted(steps.items()):
            measured = _measured(parts, kind=kind, earlier=earlier)
            earlier = measured.sample
            has_value = "value" in parts and measured.is_readable
            table.add(
                ours,
                kind=kind,
                mode=mode,
                step=step,
                statistics=measured.statistics,
                units=measured.units,
                value=partial(_loaded, parts["value"]) if has_value else None,
            )
    return table


def _by_tensor(places: Iterable[Place]) -> dict[tuple[str, Mode], dict[int, _Parts]]:
    found: dict[tuple[str, Mode], dict[int, _Parts]] = {}
    for place in places:
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


def _root(places: Iterable[Place]) -> str:
    """The class of the network: what stands before the names of parameters."""
    for place in places:
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
        return parameter_kind(parameter), parameter
    return None


def _of_module(call: re.Match[str], *, root: str) -> tuple[Kind, str] | None:
    if call["module"] == root:
        return ("input", "input") if call["way"] == "input" else None
    number = int(call["number"])
    name = f"{call['module']}:{number}" if number else call["module"]
    return ("activation" if call["way"] == "output" else "activation_input"), name


def _measured(parts: _Parts, *, kind: Kind, earlier: Sample | None) -> _Measured:
    """What is stored of a tensor, and what is not is computed, where its value is."""
    stored = _stored(parts)
    units = read_value(parts["units"]) if "units" in parts else None
    needs_units = kind == "activation" and "units" not in parts
    if "value" not in parts or (stored is not None and not needs_units):
        row = _reduced(parts) if stored is None else stored
        return _Measured(row, units, sample=None, is_readable=True)
    value = read_value(parts["value"])
    if value is None:
        return _Measured(stored or (), units, sample=None, is_readable=False)
    if needs_units and value.ndim > 1:
        units = unit_shares(value)
    if stored is not None or not value.size:
        return _Measured(stored or (), units, sample=None, is_readable=True)
    computed = tensor_statistics(value, previous=earlier)
    row = [computed[name] for name in STATISTICS]
    return _Measured(row, units, sample=Sample.of(value), is_readable=True)


def _stored(parts: _Parts) -> Sequence[float] | None:
    """The row of statistics, where a recorder of ours stored one."""
    values = read_value(parts["statistics"]) if "statistics" in parts else None
    if values is None or values.shape != (len(STATISTICS),):
        return None
    return [float(value) for value in values]


def _reduced(parts: _Parts) -> Sequence[float]:
    """The row that smdebug's reductions come to."""
    known: dict[str, float] = {}
    for part, place in parts.items():
        value = read_value(place) if part in _COLUMNS else None
        if value is not None and value.size:
            known[_COLUMNS[part]] = float(value.flat[0])
    return [known.get(name, np.nan) for name in STATISTICS]


def _loaded(place: Place) -> NDArray[Any]:
    value = read_value(place)
    return np.empty(0) if value is None else value
