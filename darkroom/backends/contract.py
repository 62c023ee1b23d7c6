"""What every backend promises to the components, and what a training comes to. Imports no torch."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Protocol

from filelock import FileLock

from darkroom.backends.endpoint import Endpoint, EndpointCheck
from darkroom.base.errors import DarkroomError, UserError
from darkroom.base.progress import Progress
from darkroom.config import DeploymentConfig, Hyperparameters
from darkroom.config.debugging import Debugging
from darkroom.config.tuning import TuningConfig
from darkroom.data.dataset import Dataset
from darkroom.models.bundle import Bundle, BundleMetadata, read_bundle
from darkroom.models.engine import Floats
from darkroom.telemetry.epochs import EpochMetrics
from darkroom.tuning.results import Trial, TuningResult

if TYPE_CHECKING:
    from darkroom.backends.predictions import BatchPrediction


# --- results ---
# What a training comes to, wherever it ran. Imports no torch.


class FailedTrainingError(DarkroomError):
    """A training failed; what was recorded until then may tell why."""

    def __init__(self, reason: str, *, recording: Path) -> None:
        super().__init__(reason)
        self.recording = recording


@dataclass(frozen=True)
class TrainedBundle:
    """A packed model and how it came to be."""

    bundle: Bundle
    history: list[EpochMetrics]
    best_epoch: int
    """From 1; the bundle holds its weights."""
    job: str | None = None
    """Name of the managed job that trained it."""
    recording: Path | None = None
    """Folder of the recording; None where nothing was recorded."""

    @property
    def metrics(self) -> dict[str, float]:
        """Of the validation split at the best epoch."""
        return self.bundle.metadata.metrics


# --- kept bundles ---
# Where bundles are kept: `<folder>/<version>[-<engine>]`, wherever they were trained.


def keep_bundle(packed: Path, *, folder: Path) -> Bundle:
    """Move a bundle to its place; another bundle that lies there, or a damaged one, is replaced.

    One that is the same stays: somebody may be reading it.

    Raises:
        UserError: it is not what was packed.
    """
    metadata = read_bundle(packed).metadata
    place = folder / metadata.place
    folder.mkdir(parents=True, exist_ok=True)
    with (
        FileLock(folder / ".lock"),
        TemporaryDirectory(dir=folder, prefix=".replaced-") as scratch,
    ):
        if holds_bundle(place, metadata=metadata):
            shutil.rmtree(packed)
        else:
            if place.exists():
                place.rename(Path(scratch, "old"))
            packed.rename(place)
    return read_bundle(place)


def holds_bundle(folder: Path, *, metadata: BundleMetadata) -> bool:
    """Whether a folder holds exactly that bundle, whole."""
    try:
        return read_bundle(folder).metadata == metadata
    except UserError:
        return False


# --- protocol ---


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
        """Search; a search that was interrupted goes on.

        Args:
            debugging: how each trial is recorded and judged.
            on_epoch: called with a trial's number and each of its epochs.
        """

    def train(
        self,
        dataset: Dataset,
        *,
        hyperparameters: Hyperparameters,
        debugging: Debugging,
        on_epoch: Callable[[EpochMetrics], None],
        progress: Progress,
    ) -> TrainedBundle:
        """Train and pack; a training that was interrupted goes on.

        Args:
            debugging: how the training is recorded and judged.
            on_epoch: called with each epoch, those before an interruption included.
        """

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
            training_job: name of the managed job that trained it; empty: none did.
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
        """Compare what the endpoint answers with what was evaluated; undo a bad deployment.

        Args:
            expected: (N, C) probabilities, columns in the order of `classes`.
            tolerance: largest difference of a probability that counts as agreement.
        """

    def remove(self, endpoint: Endpoint) -> None:
        """Take the endpoint down."""

    def predict_batch(
        self, bundle: Bundle, *, images: Sequence[Path], progress: Progress
    ) -> "list[BatchPrediction]":
        """Classify many files; what cannot be read is a row with its error."""
