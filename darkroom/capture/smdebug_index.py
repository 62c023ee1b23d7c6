"""The files of a smdebug trial: which tensor lies where, and its value.

Read without smdebug, so a trial can be judged where smdebug cannot be installed.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from darkroom.capture.tensor_events import decode_record
from darkroom.rules.evidence import Mode

_MODES: dict[str, Mode] = {"TRAIN": "train", "EVAL": "eval", "GLOBAL": "train"}
"""A hook that was never told its mode says GLOBAL: the training, in all likelihood."""


@dataclass(frozen=True)
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
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            meta = content["meta"]
            mode = _MODES.get(meta["mode"])
            file = trial / meta["event_file_name"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if mode is None or not file.is_file():
            continue
        for tensor in content.get("tensor_payload") or ():
            yield Place(
                tensor["tensorname"],
                mode=mode,
                step=int(meta["mode_step"]),
                file=file,
                start=int(tensor["start_idx"]),
                length=int(tensor["length"]),
            )


def read_value(place: Place) -> NDArray[Any]:
    """The tensor that lies at a place; an empty one where it is of no known type."""
    with place.file.open("rb") as file:
        file.seek(place.start)
        value = decode_record(file.read(place.length))
    return np.empty(0) if value is None else value
