"""What the components ask of wherever the heavy work runs."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from darkroom.backends.endpoint import Endpoint, EndpointCheck
from darkroom.backends.results import TrainedBundle
from darkroom.config import DeploymentConfig, Hyperparameters
from darkroom.config.debugging import Debugging
from darkroom.config.tuning import TuningConfig
from darkroom.dataset import Dataset
from darkroom.engines.protocol import Floats
from darkroom.model.bundle import Bundle
from darkroom.progress import Progress
from darkroom.training.history import EpochMetrics
from darkroom.tuning.results import Trial, TuningResult

if TYPE_CHECKING:
    from darkroom.backends.batch import BatchPrediction


class Backend(Protocol):
    """This machine, or SageMaker: the same calls, the same results."""

    def publish(self, dataset: Dataset, *, progress: Progress) -> Dataset:
        """Bring the images to where jobs, and later runs, can read them."""

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
        """Search; a search that was interrupted goes on."""

    def train(
        self,
        dataset: Dataset,
        *,
        hyperparameters: Hyperparameters,
        debugging: Debugging,
        on_epoch: Callable[[EpochMetrics], None],
        progress: Progress,
    ) -> TrainedBundle:
        """Train and pack; a training that was interrupted goes on."""

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
        """Register the bundle where the backend has a registry; its id there.

        Args:
            metrics: of the test split.
            passed: whether the gate lets it be deployed.
        """

    def deploy(
        self,
        bundle: Bundle,
        *,
        name: str,
        deployment: DeploymentConfig,
        keep: bool,
        progress: Progress,
    ) -> Endpoint:
        """Serve the bundle."""

    def check(
        self,
        endpoint: Endpoint,
        *,
        images: Sequence[Path],
        expected: Floats,
        classes: Sequence[str],
        tolerance: float,
    ) -> EndpointCheck:
        """Compare what the endpoint answers with what was evaluated; undo a bad deployment."""

    def remove(self, endpoint: Endpoint) -> None:
        """Take the endpoint down."""

    def predict_batch(
        self, bundle: Bundle, *, images: Sequence[Path], progress: Progress
    ) -> "list[BatchPrediction]":
        """Classify many files; what cannot be read is a row with its error."""
