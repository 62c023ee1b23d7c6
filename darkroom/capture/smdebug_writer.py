"""Looks as a trial of SageMaker Debugger: what `smdebug.trials.create_trial` reads.

smdebug's own hook describes the collections; it is not hooked onto the network. That keeps
the steps that are not looked into free of it, lets inputs be measured before a module
overwrites them, and leaves frozen parameters alone, on which the hook fails.

Names are those that the hook would give. Statistics are stored as a vector
`statistics/<name>`; of weights, gradients and activations also as smdebug's reductions (min,
max, mean, std and abs_mean), for its own tools. The shares of channels are `units/<name>`.
"""

import atexit
import json
import logging
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from darkroom.capture.tensor_events import encode_record
from darkroom.files import atomic_path, write_text
from darkroom.rules.evidence import STATISTICS, Kind, Mode

if TYPE_CHECKING:
    from darkroom.capture.looks import Look

REDUCTIONS: Mapping[str, str] = {
    "mean": "mean",
    "std": "std",
    "minimum": "min",
    "maximum": "max",
    "abs_mean": "abs_mean",
}
"""Our column to smdebug's reduction."""
STATISTICS_PREFIX, UNITS_PREFIX = "statistics/", "units/"
GRADIENT_PREFIX = "gradient/"
LOSS, LOGITS, LABELS = (
    "CrossEntropyLoss_output_0",
    "CrossEntropyLoss_input_0",
    "CrossEntropyLoss_input_1",
)
_COLLECTIONS = {
    "weights": r"^(?!gradient/|statistics/|units/)\w+_.*(?<!bias)(?<!put_\d)$",
    "biases": r"^(?!gradient/|statistics/|units/).*bias$",
    "gradients": "^gradient/",
    "losses": f"^{LOSS}$",
    "activations": r"^(?!statistics/|units/).*_output_\d+$",
    "activation_inputs": r"^(?!statistics/|units/).*_input_\d+$",
    "statistics": f"^{STATISTICS_PREFIX}",
    "units": f"^{UNITS_PREFIX}",
}
_REDUCED_COLLECTIONS = ("weights", "gradients", "activations")
_REDUCED: tuple[Kind, ...] = ("weight", "gradient", "activation")
_WORKER = "worker_0"


class _ModeKey(NamedTuple):
    name: str
    number: int


_MODES: Mapping[Mode, _ModeKey] = {"train": _ModeKey("TRAIN", 1), "eval": _ModeKey("EVAL", 2)}
"""smdebug.core.modes.ModeKeys"""


def smdebug_is_installed() -> bool:
    """Whether smdebug can be imported here; it needs Python 3.11 and an old protobuf."""
    try:
        import_smdebug()
    except ImportError:
        return False
    return True


def import_smdebug() -> Any:  # noqa: ANN401 - an untyped module
    """smdebug.pytorch, without its log lines and its warnings.

    Raises:
        ImportError: it is not installed, or not for this Python.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from smdebug.core.logger import get_logger

        get_logger().setLevel(logging.ERROR)
        import smdebug.pytorch as smd
    return smd


def smdebug_name(name: str, *, kind: Kind, root: str) -> str:
    """The name that smdebug's hook gives a tensor.

    Args:
        root: class of the network, which the hook puts before the names of parameters.
    """
    if kind in ("weight", "bias"):
        return f"{root}_{name}"
    if kind == "gradient":
        return f"{GRADIENT_PREFIX}{root}_{name}"
    if kind == "input":
        return f"{root}_input_0"
    if kind in ("activation", "activation_input"):
        module, _, number = name.partition(":")
        return f"{module}_{'output' if kind == 'activation' else 'input'}_{number or 0}"
    return {"loss": LOSS, "logits": LOGITS, "labels": LABELS}[kind]


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
        _clear(folder)
        _export_collections(folder)

    def write(self, look: "Look") -> None:
        """Store one look as one step of the trial: the tensors first, then their index."""
        from smdebug.core.locations import IndexFileLocationUtils, TensorFileLocation

        step = self._global_step(look)
        events = Path(TensorFileLocation(step, _WORKER).get_file_location(str(self._folder)))
        index = Path(
            IndexFileLocationUtils.get_index_key_for_step(str(self._folder), step, _WORKER)
        )
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
        write_text(index, json.dumps(content), durable=False)

    def close(self) -> None:
        """Leave the mark by which readers know that no step will follow."""
        from smdebug.core.access_layer import training_has_ended

        training_has_ended(str(self._folder))

    def _global_step(self, look: "Look") -> int:
        """Training steps and evaluations counted together; one evaluation after each epoch."""
        if look.mode == "train":
            return look.step + look.step // self._steps_per_epoch
        return (look.step + 1) * (self._steps_per_epoch + 1) - 1

    def _records(self, look: "Look") -> Iterator[tuple[str, NDArray[Any]]]:
        for captured in look.tensors:
            name = smdebug_name(captured.name, kind=captured.kind, root=self._root)
            if captured.value is not None:
                yield name, captured.value
            if captured.units is not None:
                yield f"{UNITS_PREFIX}{name}", captured.units
            if captured.statistics:
                values = np.array(captured.statistics)
                yield f"{STATISTICS_PREFIX}{name}", values
                if captured.kind in _REDUCED:
                    for column, reduction in REDUCTIONS.items():
                        value = values[STATISTICS.index(column)]
                        yield f"smdebug/reductions/{reduction}/{name}", np.asarray(value)


def _export_collections(folder: Path) -> None:
    """Let smdebug's hook describe what the trial holds, as its readers expect."""
    smd = import_smdebug()
    from smdebug.core.reduction_config import ReductionConfig

    with TemporaryDirectory() as scratch:
        hook = smd.Hook(
            out_dir=str(Path(scratch, "new")),
            include_collections=[*_COLLECTIONS],
        )
        hook.out_dir = str(folder)
        hook.first_process = True
        for name, pattern in _COLLECTIONS.items():
            collection = hook.get_collection(name)
            collection.include_regex = [pattern]  # smdebug's own would take in statistics
            if name in _REDUCED_COLLECTIONS:
                collection.reduction_config = ReductionConfig(
                    reductions=["min", "max", "mean", "std"], abs_reductions=["mean"]
                )
        hook._prepare_collections()
        hook.export_collections()
        hook.exported_collections = True
        hook.out_dir = str(Path(scratch, "new"))
        # Else it would mark the training as ended when the process ends.
        atexit.unregister(hook._cleanup)


def _clear(folder: Path) -> None:
    """Remove the mark of an earlier end: more will follow."""
    (folder / "training_job_end.ts").unlink(missing_ok=True)
