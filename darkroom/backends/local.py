"""Training on this machine: in this process, or as the `train` program in several.

    <folder>/training/<identity>/   the training under way: checkpoint, history, job
    <folder>/bundles/<version>/     what came of it
    <folder>/recordings/<identity>-…/ what was recorded of it

The identity is of data and hyperparameters, so the same training goes on where it was.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from darkroom.backends.kept_bundles import keep_bundle
from darkroom.backends.local_job import run_job
from darkroom.backends.results import FailedTrainingError, TrainedBundle
from darkroom.capture.layout import RECORDING_FOLDER
from darkroom.config import Hyperparameters
from darkroom.config.debugging import NO_DEBUGGING, Debugging
from darkroom.dataset import Dataset
from darkroom.errors import DarkroomError, UserError
from darkroom.locks import alone
from darkroom.model.export import pack_bundle
from darkroom.progress import SILENT, Progress
from darkroom.training.checkpoints import training_folder
from darkroom.training.history import EpochMetrics
from darkroom.training.job_folders import Job
from darkroom.training.loop import train

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
    candidates = (place / RECORDING_FOLDER, Job.at(place).recording)
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
