"""This machine as a backend: everything lies in the workspace."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from darkroom.backends.contract import TrainedBundle
from darkroom.backends.endpoint import Endpoint, EndpointCheck
from darkroom.backends.local.endpoint import check_endpoint, start_endpoint, stop_endpoint
from darkroom.backends.storage.weights import local_weights
from darkroom.base.files import workspace
from darkroom.base.locks import alone
from darkroom.base.progress import Progress
from darkroom.config import DeploymentConfig, Hyperparameters
from darkroom.config.debugging import Debugging
from darkroom.config.tuning import TuningConfig
from darkroom.data.dataset import Dataset
from darkroom.models.bundle import Bundle
from darkroom.models.engine import Floats
from darkroom.telemetry.epochs import EpochMetrics
from darkroom.tuning.results import Trial, TuningResult

if TYPE_CHECKING:
    from darkroom.backends.predictions import BatchPrediction


class LocalBackend:
    """Trains in this process, serves in a child process.

    Args:
        run: the pipeline run that an endpoint which is kept belongs to.
        fresh_since: seconds since the epoch; decoded images, checkpoints and searches that are
            older are discarded before they would be used.
    """

    def __init__(self, run: str = "", *, fresh_since: float = 0.0) -> None:
        self._run, self._fresh_since = run, fresh_since

    def publish(self, dataset: Dataset, *, progress: Progress) -> Dataset:
        """Nothing to do: the images are where they are needed."""
        return dataset

    def tune(
        self,
        dataset: Dataset,
        *,
        hyperparameters: Hyperparameters,
        tuning: TuningConfig,
        debugging: Debugging,
        on_epoch: Callable[[int, EpochMetrics], None],
        on_trial: Callable[[Trial], None],
        progress: Progress,
    ) -> TuningResult:
        """Search one trial after the other; see darkroom.tuning.search."""
        from darkroom.tuning.search import search_folder, tune

        hyperparameters = _with_weights(hyperparameters, progress=progress)
        self._discard(
            search_folder(
                workspace(), dataset=dataset, hyperparameters=hyperparameters, tuning=tuning
            ),
            dataset=dataset,
            hyperparameters=hyperparameters,
            progress=progress,
        )
        return tune(
            dataset,
            hyperparameters=hyperparameters,
            tuning=tuning,
            debugging=debugging,
            folder=workspace(),
            cache=workspace() / "cache",
            on_epoch=on_epoch,
            on_trial=on_trial,
            progress=progress,
        )

    def train(
        self,
        dataset: Dataset,
        *,
        hyperparameters: Hyperparameters,
        debugging: Debugging,
        on_epoch: Callable[[EpochMetrics], None],
        progress: Progress,
    ) -> TrainedBundle:
        """Train; see darkroom.backends.local.training."""
        from darkroom.backends.local.training import train_bundle
        from darkroom.training.checkpoints import training_folder

        hyperparameters = _with_weights(hyperparameters, progress=progress)
        self._discard(
            training_folder(workspace(), dataset=dataset, hyperparameters=hyperparameters),
            dataset=dataset,
            hyperparameters=hyperparameters,
            progress=progress,
        )
        return train_bundle(
            dataset,
            hyperparameters=hyperparameters,
            folder=workspace(),
            cache=workspace() / "cache",
            debugging=debugging,
            on_epoch=on_epoch,
            progress=progress,
        )

    def _discard(
        self,
        place: Path,
        *,
        dataset: Dataset,
        hyperparameters: Hyperparameters,
        progress: Progress,
    ) -> None:
        """Remove what earlier runs have left of the work at `place`, and the images they decoded.

        What this run itself has left, before it was killed or for a later component, stays.
        """
        if not self._fresh_since:
            return
        from darkroom.training.examples import discard_pixel_caches, preprocessing_of

        with alone(place.with_suffix(".lock"), doing="does the same work", progress=progress):
            if place.is_dir() and place.stat().st_mtime < self._fresh_since:
                shutil.rmtree(place)
        discard_pixel_caches(
            dataset,
            preprocessing=preprocessing_of(hyperparameters),
            folder=workspace() / "cache",
            older_than=self._fresh_since,
        )

    def register(
        self,
        bundle: Bundle,
        *,
        name: str,
        metrics: Mapping[str, float],
        dataset: Dataset,
        training_job: str,
        passed: bool,
    ) -> str | None:
        """None: MLflow's registry is all there is."""
        return None

    def deploy(
        self,
        bundle: Bundle,
        *,
        name: str,
        deployment: DeploymentConfig,
        keep: bool,
        progress: Progress,
    ) -> Endpoint:
        """Start the `serve` program on a free loopback port; one that is kept gets a name."""
        seconds = deployment.start_timeout_seconds
        if not keep:
            return start_endpoint(bundle.folder, timeout_seconds=seconds)
        from darkroom.backends.local.records import keep_endpoint

        return keep_endpoint(bundle, name=name, run=self._run, timeout_seconds=seconds)

    def check(
        self,
        endpoint: Endpoint,
        *,
        images: Sequence[Path],
        expected: Floats,
        classes: Sequence[str],
        tolerance: float,
    ) -> EndpointCheck:
        """Compare the answers; an endpoint that does not answer is stopped."""
        try:
            return check_endpoint(
                endpoint, images=images, expected=expected, classes=classes, tolerance=tolerance
            )
        except BaseException:
            stop_endpoint(endpoint)
            raise

    def remove(self, endpoint: Endpoint) -> None:
        """Stop the server."""
        stop_endpoint(endpoint)

    def predict_batch(
        self, bundle: Bundle, *, images: Sequence[Path], progress: Progress
    ) -> "list[BatchPrediction]":
        """Classify in this process."""
        from darkroom.backends.predictions import predict_batch

        return predict_batch(images, bundle=bundle, progress=progress)


def _with_weights(hyperparameters: Hyperparameters, *, progress: Progress) -> Hyperparameters:
    """With weights from S3 or the web fetched."""
    weights = local_weights(hyperparameters.weights, store=workspace() / "data", progress=progress)
    return hyperparameters.replace(weights=weights)
