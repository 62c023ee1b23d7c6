"""Training on this machine: in this process, or as the `train` program in several.

    <folder>/training/<identity>/   the training under way: checkpoint, history, job
    <folder>/bundles/<version>/     what came of it
    <folder>/recordings/<identity>-…/ what was recorded of it

The identity is of data and hyperparameters, so the same training goes on where it was.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp

from darkroom.backends.contract import FailedTrainingError, TrainedBundle, keep_bundle
from darkroom.base.errors import DarkroomError, UserError
from darkroom.base.files import write_text
from darkroom.base.locks import alone
from darkroom.base.processes import parent_environment
from darkroom.base.progress import SILENT, Progress
from darkroom.config import Hyperparameters
from darkroom.config.debugging import NO_DEBUGGING, Debugging
from darkroom.data.dataset import Dataset
from darkroom.models.export import pack_bundle
from darkroom.telemetry.epochs import EpochMetrics
from darkroom.telemetry.recording import RECORDING_FOLDER
from darkroom.training.channels import MANIFEST_FILE, JobPaths
from darkroom.training.checkpoints import training_folder
from darkroom.training.hyperparameters import debugging_strings, to_strings
from darkroom.training.loop import train

# --- local job ---
# A training job on this machine: the `train` program over a base folder of its own.

_SECONDS_BETWEEN_LOOKS = 0.2
_SECONDS_TO_STOP = 35  # torchrun gives its processes 30
_LOG_FILE = "train.log"


def run_job(
    dataset: Dataset,
    *,
    hyperparameters: Hyperparameters,
    folder: Path,
    cache: Path,
    debugging: Debugging,
    on_epoch: Callable[[EpochMetrics], None] | None = None,
    progress: Progress = SILENT,
) -> tuple[list[EpochMetrics], int, Path]:
    """Run the `train` program below `folder`, and relay its epochs while it runs.

    Args:
        folder: the base folder of the job, which stays after it.
        cache: of decoded images; linked into the job's folder.
        debugging: passed to the program among its hyperparameters.
        on_epoch: called with each epoch, as soon as the program's history file holds it.

    Returns:
        The history, the number of the best epoch, and the folder of the bundle.

    Raises:
        UserError, DarkroomError: the job failed; the message is its own.
    """
    job = JobPaths.at(folder.resolve())
    strings = to_strings(hyperparameters) | debugging_strings(debugging)
    _prepare(job, dataset=dataset, strings=strings, cache=cache)
    history: list[EpochMetrics] = []
    with (
        progress.task("train", total=hyperparameters.epochs) as task,
        _process(job) as process,
    ):
        running = True
        while running:
            running = process.poll() is None
            for epoch in _epochs(job)[len(history) :]:
                history.append(epoch)
                task.advance(
                    detail=epoch.headline(
                        epochs=hyperparameters.epochs, objective=hyperparameters.objective
                    )
                )
                if on_epoch:
                    on_epoch(epoch)
            time.sleep(_SECONDS_BETWEEN_LOOKS if running else 0)
    _check(job, code=process.returncode)
    return history, json.loads(job.history.read_text())["best_epoch"], job.model


def _prepare(job: JobPaths, *, dataset: Dataset, strings: dict[str, str], cache: Path) -> None:
    job.history.unlink(missing_ok=True)  # written anew, from the checkpoint's first epoch on
    write_text(job.config / "hyperparameters.json", json.dumps(strings))
    dataset = replace(dataset, root=dataset.root.resolve())
    write_text(job.data / "training" / MANIFEST_FILE, dataset.to_json())
    cache.mkdir(parents=True, exist_ok=True)
    if not job.cache.exists():
        job.cache.symlink_to(cache.resolve())


@contextmanager
def _process(job: JobPaths) -> Iterator[subprocess.Popen[bytes]]:
    """The program, stopped with all its processes when the block ends before it does."""
    with (job.base / _LOG_FILE).open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "darkroom.training.program"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **parent_environment(), "SAGEMAKER_BASE_DIR": str(job.base)},
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _epochs(job: JobPaths) -> list[EpochMetrics]:
    if not job.history.is_file():
        return []
    epochs = json.loads(job.history.read_text(encoding="utf-8"))["epochs"]
    return [EpochMetrics.model_validate(epoch) for epoch in epochs]


def _check(job: JobPaths, *, code: int) -> None:
    if code == 0:
        return
    if job.failure.is_file():
        reason = job.failure.read_text(encoding="utf-8")
    else:
        reason = f"the training program ended with code {code}; its log is {job.base / _LOG_FILE}"
    raise UserError(reason) if code == UserError.exit_code else DarkroomError(reason)


# --- local ---

OnEpoch = Callable[[EpochMetrics], None]


def train_bundle(
    dataset: Dataset,
    *,
    hyperparameters: Hyperparameters,
    folder: Path,
    cache: Path,
    debugging: Debugging = NO_DEBUGGING,
    on_epoch: OnEpoch | None = None,
    progress: Progress = SILENT,
) -> TrainedBundle:
    """Train and pack a bundle; a training that was killed goes on.

    Args:
        hyperparameters: with `processes` above 1 the `train` program is started.
        folder: shared between trainings; the bundle is left there, the rest removed.
        cache: of decoded images.
        debugging: how the training is recorded and judged.
        on_epoch: called with each epoch, those before an interruption included.

    Raises:
        UserError: data, weights or hyperparameters cannot be trained with.
        FailedTrainingError: the training failed; its recording is there.
        DarkroomError: it failed unrecorded, or the bundle would not predict the same.
    """
    place = training_folder(folder, dataset=dataset, hyperparameters=hyperparameters)
    how = _train_here if hyperparameters.processes == 1 else run_job
    with (
        alone(place.with_suffix(".lock"), doing="makes the same training", progress=progress),
        _recording_kept_on_failure(place),
    ):
        place.mkdir(parents=True, exist_ok=True)
        history, best_epoch, packed = how(
            dataset,
            hyperparameters=hyperparameters,
            folder=place,
            cache=cache,
            debugging=debugging,
            on_epoch=on_epoch,
            progress=progress,
        )
        bundle = keep_bundle(packed, folder=folder / "bundles")
        recording = _keep_recording(place, folder=folder / "recordings")
        shutil.rmtree(place, ignore_errors=True)
    return TrainedBundle(bundle, history=history, best_epoch=best_epoch, recording=recording)


def _recording_of(place: Path) -> Path | None:
    """Where a training below `place` has recorded; a job does so with its checkpoints."""
    candidates = (place / RECORDING_FOLDER, JobPaths.at(place).recording)
    return next((path for path in candidates if path.is_dir()), None)


def _keep_recording(place: Path, *, folder: Path) -> Path | None:
    """Move the recording to `folder/<identity>-…`: another process may read an older one."""
    recording = _recording_of(place)
    if recording is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    kept = Path(mkdtemp(dir=folder, prefix=f"{place.name}-"))
    return recording.rename(kept)


@contextmanager
def _recording_kept_on_failure(place: Path) -> Iterator[None]:
    """Tell with the error where the recording lies."""
    try:
        yield
    except UserError:
        raise
    except DarkroomError as error:
        recording = _recording_of(place)
        if recording is None:
            raise
        raise FailedTrainingError(str(error), recording=recording) from error


def _train_here(
    dataset: Dataset,
    *,
    hyperparameters: Hyperparameters,
    folder: Path,
    cache: Path,
    debugging: Debugging,
    on_epoch: OnEpoch | None,
    progress: Progress,
) -> tuple[list[EpochMetrics], int, Path]:
    result = train(
        dataset,
        hyperparameters=hyperparameters,
        folder=folder,
        cache=cache,
        debugging=debugging,
        on_epoch=on_epoch,
        progress=progress,
    )
    packed = folder / "model"
    with progress.task("packing the model"):
        pack_bundle(
            result.model,
            dataset=dataset,
            hyperparameters=hyperparameters,
            preprocessing=result.preprocessing,
            metrics=result.metrics,
            folder=packed,
        )
    return result.history, result.best_epoch, packed
