"""The files of a smdebug trial: which tensor lies where, and its value.

Read without smdebug, so a trial can be judged where smdebug cannot be installed.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from darkroom.capture.tensor_events import decode_record
from darkroom.rules.evidence import Mode

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
