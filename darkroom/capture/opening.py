"""Opening a recording for a training that begins or goes on."""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from darkroom.capture.facts import RecordingFacts, read_facts, write_facts
from darkroom.capture.folder_recorder import FolderRecorder
from darkroom.capture.layout import RecordingFolder
from darkroom.capture.lines import LineWriter
from darkroom.capture.live import LiveJudge
from darkroom.capture.logs import read_epochs, read_steps
from darkroom.capture.margins import MarginMeter
from darkroom.capture.reading import read_tensors
from darkroom.capture.recorder import SILENT, Recorder
from darkroom.capture.schedule import Schedule
from darkroom.capture.smdebug_writer import SmdebugWriter, smdebug_is_installed
from darkroom.capture.stall_watch import leave_at_once, watching_for_stalls
from darkroom.capture.writing import TensorWriter
from darkroom.config import Hyperparameters
from darkroom.config.debugging import Debugging, RecordingConfig
from darkroom.errors import UserError
from darkroom.files import write_text
from darkroom.profiling.operators import OperatorProfiler
from darkroom.profiling.sampler import SystemSampler
from darkroom.rules.evidence import TrainingFacts
from darkroom.rules.findings import Finding


@dataclass(frozen=True)
class Recorded:
    """What a recording is of."""

    model: nn.Module
    hyperparameters: Hyperparameters
    classes: Sequence[str]
    train_labels: NDArray[np.int64]
    """(N,) class indices, in the manifest's order."""
    validation_labels: NDArray[np.int64]
    train_paths: Sequence[str]
    """(N,) in the manifest."""
    head: str
    """Name of the classification layer."""
    steps_per_epoch: int
    processes: int = 1


@contextmanager
def open_recorder(
    folder: Path,
    *,
    recorded: Recorded,
    debugging: Debugging | None,
    is_resumed: bool,
    on_finding: Callable[[Finding], None],
    on_hang: Callable[[Finding], None] = leave_at_once,
) -> Iterator[Recorder]:
    """A recorder into a folder, for the time of the block; silent where nothing is wanted.

    Args:
        folder: of the recording; a resumed training goes on with what is there. Where nothing
            is to be recorded, what an earlier one left is removed: it is of another training.
        debugging: None in a process that leaves the recording to another.
        on_finding: told of what rules find while the training runs.
        on_hang: ends the process where a rule is to end a training that cannot be interrupted.

    Raises:
        UserError: a rule is unknown.
    """
    if debugging is None:
        yield SILENT
        return
    if not debugging.is_on:
        shutil.rmtree(folder, ignore_errors=True)
        yield SILENT
        return
    config, place = debugging.recording, RecordingFolder(folder)
    backend = _backend(config)
    _prepare(place, config=config, backend=backend, is_resumed=is_resumed)
    facts = _facts(recorded)
    _note_start(place, facts=facts, config=config, backend=backend, paths=recorded.train_paths)
    margins = MarginMeter(recorded.train_labels)

    def tell(finding: Finding) -> None:
        told = LineWriter(place.told)
        told.write({"rule": finding.rule, "step": finding.step, "epoch": finding.epoch})
        told.close()
        on_finding(finding)

    judge = _judge(debugging, facts=facts, margins=margins, recorded=recorded, tell=tell)
    if is_resumed:
        _take_up(place, backend=backend, margins=margins, judge=judge)
    with ExitStack() as open_files:
        recorder = FolderRecorder(
            place,
            model=recorded.model,
            schedule=Schedule.of(config, steps_per_epoch=recorded.steps_per_epoch),
            writer=_writer(place, recorded=recorded, backend=backend),
            margins=margins,
            full=config.tensors == "full",
            judge=judge,
            profiler=OperatorProfiler(place.profile, steps=config.profiled_steps),
        )
        open_files.callback(recorder.close)
        if judge:
            open_files.enter_context(
                watching_for_stalls(judge, give_up=partial(_noted, place, end=on_hang))
            )
        open_files.enter_context(
            SystemSampler(place.system, interval_ms=config.system_milliseconds)
        )
        yield recorder


def _noted(place: RecordingFolder, finding: Finding, *, end: Callable[[Finding], None]) -> None:
    """Leave in the recording what ended the training, and end its process."""
    write_text(place.ended_by, finding.model_dump_json(indent=1))
    end(finding)


def _prepare(
    place: RecordingFolder, *, config: RecordingConfig, backend: str, is_resumed: bool
) -> None:
    """Remove what an earlier recording left that this one does not go on with."""
    if not is_resumed:
        shutil.rmtree(place.root, ignore_errors=True)
    elif place.facts.exists():
        try:
            if read_facts(place.facts).backend != backend:
                shutil.rmtree(place.tensors, ignore_errors=True)
        except UserError:
            shutil.rmtree(place.root, ignore_errors=True)
    place.ended_by.unlink(missing_ok=True)
    place.root.mkdir(parents=True, exist_ok=True)


def _note_start(
    place: RecordingFolder,
    *,
    facts: TrainingFacts,
    config: RecordingConfig,
    backend: Literal["smdebug", "torch"],
    paths: Sequence[str],
) -> None:
    """Write what is recorded, and that it begins, or goes on, now."""
    write_facts(
        place.facts,
        RecordingFacts(
            training=facts,
            recording=config,
            backend=backend,
            paths=tuple(paths),
            starts=(time.time(),),
        ),
    )


def _take_up(
    place: RecordingFolder, *, backend: str, margins: MarginMeter, judge: LiveJudge | None
) -> None:
    """Take in what was recorded before the interruption."""
    margins.restore(place.margins)
    if judge:
        judge.go_on_from(
            read_tensors(place, backend=backend),
            steps=read_steps(place.steps),
            epochs=read_epochs(place.epochs),
        )


def _backend(config: RecordingConfig) -> Literal["smdebug", "torch"]:
    is_smdebug = config.backend == "smdebug" or (
        config.backend == "auto" and smdebug_is_installed()
    )
    return "smdebug" if is_smdebug else "torch"


def _writer(place: RecordingFolder, *, recorded: Recorded, backend: str) -> TensorWriter:
    if backend == "smdebug":
        return SmdebugWriter(
            place.tensors,
            root=type(recorded.model).__name__,
            steps_per_epoch=recorded.steps_per_epoch,
        )
    from darkroom.capture.parquet_tensors import ParquetWriter

    return ParquetWriter(place.tensors)


def _judge(
    debugging: Debugging,
    *,
    facts: TrainingFacts,
    margins: MarginMeter,
    recorded: Recorded,
    tell: Callable[[Finding], None],
) -> LiveJudge | None:
    diagnosis = debugging.diagnosis
    if not (diagnosis.enabled and diagnosis.live):
        return None
    return LiveJudge(
        diagnosis,
        facts=facts,
        margins=margins,
        paths=tuple(recorded.train_paths),
        on_finding=tell,
    )


def _facts(recorded: Recorded) -> TrainingFacts:
    parameters = dict(recorded.model.named_parameters())
    learns_all = recorded.hyperparameters.fine_tune == "all"
    classes = len(recorded.classes)
    return TrainingFacts(
        architecture=recorded.hyperparameters.architecture,
        classes=tuple(recorded.classes),
        hyperparameters=recorded.hyperparameters.model_dump(),
        steps_per_epoch=recorded.steps_per_epoch,
        class_counts={
            "train": np.bincount(recorded.train_labels, minlength=classes).tolist(),
            "validation": np.bincount(recorded.validation_labels, minlength=classes).tolist(),
        },
        trainable={name: parameter.requires_grad for name, parameter in parameters.items()},
        expected_trainable={
            name: learns_all or name.startswith(f"{recorded.head}.") for name in parameters
        },
        processes=recorded.processes,
        started=time.time(),
    )
