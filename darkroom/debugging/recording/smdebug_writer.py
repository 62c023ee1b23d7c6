"""Looks as a trial of SageMaker Debugger: what `smdebug.trials.create_trial` reads.

Written without smdebug: its hook would measure at every step what few steps are looked at
for, fails on frozen parameters, and sees inputs only after a module has overwritten them; and
its import alone takes half a second. Tests read what is written here by smdebug.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from darkroom.base.files import atomic_path, write_text
from darkroom.debugging.smdebug_format import (
    REDUCED,
    REDUCTIONS,
    STATISTICS_PREFIX,
    UNITS_PREFIX,
    collections,
    collections_file,
    encode_record,
    end_mark,
    events_file,
    index_file,
    tensor_name,
)
from darkroom.telemetry.evidence import STATISTICS, Mode

if TYPE_CHECKING:
    from darkroom.debugging.recording.snapshots import Look

_JOB_VARIABLE = "TRAINING_JOB_NAME"
"""SageMaker sets it in training jobs."""


class _ModeKey(NamedTuple):
    name: str
    number: int


_MODES: Mapping[Mode, _ModeKey] = {"train": _ModeKey("TRAIN", 1), "eval": _ModeKey("EVAL", 2)}
"""smdebug.core.modes.ModeKeys"""


def smdebug_is_installed() -> bool:
    """Whether smdebug, by which people read trials, is here; it is not imported."""
    return find_spec("smdebug") is not None


class SmdebugWriter:
    """Writes a trial, or goes on with one.

    Args:
        folder: of the trial.
        root: class of the network.
        steps_per_epoch: so that the steps of both modes are counted together, as smdebug
            does, and equally after an interruption.
    """

    def __init__(self, folder: Path, *, root: str, steps_per_epoch: int) -> None:
        self._folder, self._root, self._steps_per_epoch = folder, root, steps_per_epoch
        end_mark(folder).unlink(missing_ok=True)  # of an earlier end: more will follow
        write_text(collections_file(folder), json.dumps(collections()))

    def write(self, look: "Look") -> None:
        """Store one look as one step of the trial: the tensors first, then their index."""
        step = self._global_step(look)
        events = events_file(self._folder, step=step)
        places, position = [], 0
        # Not durable: waiting for the disk took longer than writing, at every look.
        with atomic_path(events, durable=False) as temporary, temporary.open("wb") as file:
            for name, array in self._records(look):
                record = encode_record(
                    name,
                    array,
                    step=step,
                    mode=_MODES[look.mode].number,
                    mode_step=look.step,
                    time=time.time(),
                )
                file.write(record)
                places.append({"tensorname": name, "start_idx": position, "length": len(record)})
                position += len(record)
        meta = {
            "mode": _MODES[look.mode].name,
            "mode_step": look.step,
            "event_file_name": str(events.relative_to(self._folder)),
        }
        content = {"meta": meta, "tensor_payload": places, "shape_payload": []}
        write_text(index_file(self._folder, step=step), json.dumps(content), durable=False)

    def close(self) -> None:
        """Leave the mark that no step will follow.

        Not in a SageMaker job, as with smdebug: an interrupted one goes on, and the mark would
        stay on S3.
        """
        if _JOB_VARIABLE not in os.environ:
            end_mark(self._folder).touch()

    def _global_step(self, look: "Look") -> int:
        """Training steps and evaluations counted together; one evaluation after each epoch."""
        if look.mode == "train":
            return look.step + look.step // self._steps_per_epoch
        return (look.step + 1) * (self._steps_per_epoch + 1) - 1

    def _records(self, look: "Look") -> Iterator[tuple[str, NDArray[Any]]]:
        for captured in look.tensors:
            name = tensor_name(captured.name, kind=captured.kind, root=self._root)
            if captured.value is not None:
                yield name, captured.value
            if captured.units is not None:
                yield f"{UNITS_PREFIX}{name}", captured.units
            if captured.statistics:
                values = np.array(captured.statistics)
                yield f"{STATISTICS_PREFIX}{name}", values
                if captured.kind in REDUCED:
                    for column, reduction in REDUCTIONS.items():
                        value = values[STATISTICS.index(column)]
                        yield f"smdebug/reductions/{reduction}/{name}", np.asarray(value)
