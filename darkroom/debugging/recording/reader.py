"""From a recording's folder to the evidence that rules judge."""

import time
from pathlib import Path

from darkroom.debugging.recording.logs import (
    read_epochs,
    read_evaluation_log,
    read_margins,
    read_step_log,
)
from darkroom.telemetry.evidence import Evidence, read_facts
from darkroom.telemetry.recording import RecordingFolder
from darkroom.telemetry.system import read_samples
from darkroom.telemetry.tensors import TensorTable


def read_evidence(folder: Path) -> Evidence:
    """Everything that was recorded; parts that are missing are empty.

    Raises:
        UserError: the folder is no recording.
    """
    place = RecordingFolder(folder)
    facts = read_facts(place.facts)
    return Evidence(
        facts=facts.training,
        tensors=read_tensors(place, backend=facts.backend),
        steps=read_step_log(place.steps),
        epochs=read_epochs(place.epochs),
        evaluations=read_evaluation_log(place.evaluations),
        margins=read_margins(place.margins, paths=facts.paths),
        system=read_samples(place.system),
        trial=str(place.tensors) if facts.backend == "smdebug" else "",
        now=time.time(),
    )


def read_tensors(place: RecordingFolder, *, backend: str) -> TensorTable:
    """The tensors that a backend has written; of none, where it has written none."""
    if backend == "smdebug":
        from darkroom.debugging.smdebug_source import read_smdebug_tensors

        return read_smdebug_tensors(place.tensors)
    from darkroom.debugging.recording.parquet import read_parquet_tensors

    return read_parquet_tensors(place.tensors)
