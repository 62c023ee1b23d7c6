"""From a recording's folder to the evidence that rules judge."""

import time
from pathlib import Path

from darkroom.capture.facts import read_facts
from darkroom.capture.layout import RecordingFolder
from darkroom.capture.logs import read_epochs, read_evaluation_log, read_step_log
from darkroom.capture.margins import read_margins
from darkroom.capture.table import TensorTable
from darkroom.profiling.system import read_samples
from darkroom.rules.evidence import Evidence


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
        from darkroom.capture.smdebug_source import read_smdebug_tensors

        return read_smdebug_tensors(place.tensors)
    from darkroom.capture.parquet_tensors import read_parquet_tensors

    return read_parquet_tensors(place.tensors)
