"""SageMaker as a backend: managed jobs for the heavy work, endpoints for the model."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from darkroom.backends.contract import TrainedBundle
from darkroom.backends.endpoint import Endpoint, EndpointCheck
from darkroom.backends.sagemaker.session import Clients, SageMakerContext
from darkroom.base.files import workspace
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


class SageMakerBackend:
    """Each call starts a managed job, or finds the one that an earlier start left running."""

    def __init__(self, site: SageMakerContext, *, clients: Clients | None = None) -> None:
        self._site = site
        self._clients = clients or Clients(site.region)

    def publish(self, dataset: Dataset, *, progress: Progress) -> Dataset:
        """Pack the images into shards on S3, unless they lie there."""
        from darkroom.backends.storage.datasets import publish

        return publish(
            dataset,
            root=self._site.root,
            kms_key=self._site.config.kms_key,
            client=self._clients.s3,
            progress=progress,
        )

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
        """Run a managed tuning job."""
        from darkroom.backends.sagemaker.tuning.job import run_tuning

        return run_tuning(
            dataset,
            hyperparameters=hyperparameters,
            tuning=tuning,
            debugging=debugging,
            site=self._site,
            clients=self._clients,
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
        """Run a training job, and fetch its model."""
        from darkroom.backends.sagemaker.training.job import run_training

        return run_training(
            dataset,
            hyperparameters=hyperparameters,
            site=self._site,
            clients=self._clients,
            folder=workspace(),
            debugging=debugging,
            on_epoch=on_epoch,
            progress=progress,
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
        """Register a model package; its ARN."""
        from darkroom.backends.sagemaker.registry import register_package

        return register_package(
            bundle,
            name=name,
            metrics=metrics,
            dataset=dataset,
            site=self._site,
            clients=self._clients,
            training_job=training_job or None,
            passed=passed,
        ).arn

    def deploy(
        self,
        bundle: Bundle,
        *,
        name: str,
        deployment: DeploymentConfig,
        keep: bool,
        progress: Progress,
    ) -> Endpoint:
        """Create or update an endpoint, and wait until it is in service."""
        from darkroom.backends.sagemaker.hosting.endpoint import deploy

        return deploy(
            bundle,
            name=name,
            site=self._site,
            clients=self._clients,
            keep=keep,
            start_timeout_seconds=deployment.start_timeout_seconds,
            progress=progress,
        )

    def check(
        self,
        endpoint: Endpoint,
        *,
        images: Sequence[Path],
        expected: Floats,
        classes: Sequence[str],
        tolerance: float,
    ) -> EndpointCheck:
        """Ask the endpoint; one that answers differently is rolled back, or removed."""
        from darkroom.backends.sagemaker.hosting.endpoint import verify_endpoint

        return verify_endpoint(
            endpoint,
            images=images,
            expected=expected,
            classes=classes,
            tolerance=tolerance,
            clients=self._clients,
        )

    def remove(self, endpoint: Endpoint) -> None:
        """Delete the endpoint, its configuration and its model."""
        from darkroom.backends.sagemaker.hosting.rollback import remove_endpoint

        remove_endpoint(endpoint, clients=self._clients)

    def predict_batch(
        self, bundle: Bundle, *, images: Sequence[Path], progress: Progress
    ) -> "list[BatchPrediction]":
        """Run a batch transform job over the images."""
        from darkroom.backends.sagemaker.transform import transform

        return transform(
            images, bundle=bundle, site=self._site, clients=self._clients, progress=progress
        )
