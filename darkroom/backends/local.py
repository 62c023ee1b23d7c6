"""Training on this machine: in this process, or as the `train` program in several.

    <folder>/training/<identity>/   the training under way: checkpoint, history, job
    <folder>/bundles/<version>/     what came of it

The identity is of data and hyperparameters, so the same training goes on where it was.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from darkroom.backends.kept_bundles import keep_bundle
from darkroom.backends.local_job import run_job
from darkroom.backends.results import TrainedBundle
from darkroom.config import Hyperparameters
from darkroom.dataset import Dataset
from darkroom.model.export import pack_bundle
from darkroom.progress import SILENT, Progress
from darkroom.training.checkpoints import training_folder
from darkroom.training.history import EpochMetrics
from darkroom.training.loop import train

OnEpoch = Callable[[EpochMetrics], None]


def train_bundle(
    dataset: Dataset,
    *,
    hyperparameters: Hyperparameters,
    folder: Path,
    cache: Path,
    on_epoch: OnEpoch | None = None,
    progress: Progress = SILENT,
) -> TrainedBundle:
    """Train and pack a bundle; a training that was killed goes on.

    Args:
        hyperparameters: with `processes` above 1 the `train` program is started.
        folder: shared between trainings; the bundle is left there, the rest removed.
        cache: of decoded images.
        on_epoch: called with each epoch, those before an interruption included.

    Raises:
        UserError: data, weights or hyperparameters cannot be trained with.
        DarkroomError: the training failed, or the bundle would not predict the same.
    """
    place = training_folder(folder, dataset=dataset, hyperparameters=hyperparameters)
    place.mkdir(parents=True, exist_ok=True)
    how = _train_here if hyperparameters.processes == 1 else run_job
    history, best_epoch, packed = how(
        dataset,
        hyperparameters=hyperparameters,
        folder=place,
        cache=cache,
        on_epoch=on_epoch,
        progress=progress,
    )
    bundle = keep_bundle(packed, folder=folder / "bundles")
    shutil.rmtree(place, ignore_errors=True)
    return TrainedBundle(bundle, history=history, best_epoch=best_epoch)


def _train_here(
    dataset: Dataset,
    *,
    hyperparameters: Hyperparameters,
    folder: Path,
    cache: Path,
    on_epoch: OnEpoch | None,
    progress: Progress,
) -> tuple[list[EpochMetrics], int, Path]:
    result = train(
        dataset,
        hyperparameters=hyperparameters,
        folder=folder,
        cache=cache,
        on_epoch=on_epoch,
        progress=progress,
    )
    packed = folder / "model"
    with progress.task("packing the model"):
        pack_bundle(
            result.model,
            dataset=dataset,
            hyperparameters=hyperparameters,
            metrics=result.metrics,
            folder=packed,
        )
    return result.history, result.best_epoch, packed
