"""Record a training: what a recorder is, one that records nothing, and one as configured."""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from darkroom.base.errors import UserError
from darkroom.base.files import write_text
from darkroom.config import Hyperparameters
from darkroom.config.debugging import Debugging, RecordingConfig
from darkroom.debugging.profiling.operators import OperatorProfiler
from darkroom.debugging.profiling.sampler import SystemSampler
from darkroom.debugging.recording.folder_recorder import FolderRecorder, Schedule, TensorWriter
from darkroom.debugging.recording.live import LiveJudge, leave_at_once, watching_for_stalls
from darkroom.debugging.recording.logs import MarginMeter, read_epochs, read_steps
from darkroom.debugging.recording.reader import read_tensors
from darkroom.debugging.recording.smdebug_writer import SmdebugWriter, smdebug_is_installed
from darkroom.telemetry.epochs import EpochMetrics
from darkroom.telemetry.evidence import RecordingFacts, RunMetadata, read_facts, write_facts
from darkroom.telemetry.findings import Finding
from darkroom.telemetry.recording import LineWriter, Phase, RecordingFolder

# --- recorder ---


class Recorder(Protocol):
    """Takes note of a training."""

    def phase(self, name: Phase) -> AbstractContextManager[None]:
        """The block's time belongs to a phase."""

    def step(
        self, number: int, *, epoch: int, learning_rate: float
    ) -> AbstractContextManager[None]:
        """The block is one training step, counted from 0 over the whole training."""

    def forward(self, model: nn.Module) -> AbstractContextManager[None]:
        """The block is the network's forward pass."""

    def outcome(
        self,
        positions: NDArray[np.int64],
        *,
        images: Tensor,
        logits: Tensor,
        labels: Tensor,
        loss: float,
        correct: int,
    ) -> None:
        """Take note of what the forward pass came to, before anything is learned from it.

        Args:
            positions: (n,) of the images among the training images that this process has.
            images: (n, 3, S, S) floats, normalised as the network sees them.
            logits: (n, C), before softmax.
            labels: (n,) class indices.
            loss: in nats, the mean over these images.
            correct: how many of these images were recognised.
        """

    def gradients(self) -> None:
        """The gradients are there, neither clipped nor applied."""

    def gradient_norm(self, norm: float) -> None:
        """The norm of all gradients, before clipping."""

    def dissect(self, model: nn.Module, *, images: Tensor) -> None:
        """The loss is not finite: look where in the network it began."""

    def evaluation(self, epoch: int) -> AbstractContextManager[None]:
        """The block evaluates the network after an epoch."""

    def evaluated(self, *, logits: Tensor, labels: NDArray[np.int64]) -> None:
        """What the evaluation came to."""

    def epoch(self, metrics: EpochMetrics) -> None:
        """An epoch is over and on the disk."""

    def verdict(self) -> Finding | None:
        """The finding for which the training is to end; None: go on."""

    def ended_by(self, finding: Finding) -> None:
        """The training ends before its last epoch, for this finding."""


class _Silent:
    """Takes no note of anything."""

    def phase(self, name: Phase) -> AbstractContextManager[None]:
        return _NOTHING

    def step(
        self, number: int, *, epoch: int, learning_rate: float
    ) -> AbstractContextManager[None]:
        return _NOTHING

    def forward(self, model: nn.Module) -> AbstractContextManager[None]:
        return _NOTHING

    def outcome(
        self,
        positions: NDArray[np.int64],
        *,
        images: Tensor,
        logits: Tensor,
        labels: Tensor,
        loss: float,
        correct: int,
    ) -> None:
        return None

    def gradients(self) -> None:
        return None

    def gradient_norm(self, norm: float) -> None:
        return None

    def dissect(self, model: nn.Module, *, images: Tensor) -> None:
        return None

    def evaluation(self, epoch: int) -> AbstractContextManager[None]:
        return _NOTHING

    def evaluated(self, *, logits: Tensor, labels: NDArray[np.int64]) -> None:
        return None

    def epoch(self, metrics: EpochMetrics) -> None:
        return None

    def verdict(self) -> Finding | None:
        return None

    def ended_by(self, finding: Finding) -> None:
        return None


_NOTHING = nullcontext()
SILENT: Recorder = _Silent()


# --- opening a recorder ---
# Opening a recording for a training that begins or goes on.


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
    facts: RunMetadata,
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
    from darkroom.debugging.recording.parquet import ParquetWriter

    return ParquetWriter(place.tensors)


def _judge(
    debugging: Debugging,
    *,
    facts: RunMetadata,
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


def _facts(recorded: Recorded) -> RunMetadata:
    parameters = dict(recorded.model.named_parameters())
    learns_all = recorded.hyperparameters.fine_tune == "all"
    classes = len(recorded.classes)
    return RunMetadata(
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
