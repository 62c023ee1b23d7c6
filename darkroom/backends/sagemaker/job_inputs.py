"""What jobs read from S3: the published data set, and initial weights of the user's."""

from dataclasses import dataclass
from pathlib import Path

from darkroom.backends.published_datasets import publish
from darkroom.backends.sagemaker.clients import Clients
from darkroom.backends.sagemaker.site import Site
from darkroom.backends.weights import NAMED, local_weights, publish_weights
from darkroom.config import Hyperparameters
from darkroom.dataset import Dataset
from darkroom.files import workspace
from darkroom.progress import SILENT, Progress


@dataclass(frozen=True)
class JobInputs:
    """What a job is started with; all of it lies on S3."""

    dataset: Dataset
    hyperparameters: Hyperparameters
    """Their weights are 'imagenet', 'none' or an s3:// URI that tells the content."""

    @property
    def weights(self) -> str:
        """The prefix of the initial weights; empty: the job reads none from S3."""
        weights = self.hyperparameters.weights
        return "" if weights in NAMED else weights


def bring_inputs(
    dataset: Dataset,
    *,
    hyperparameters: Hyperparameters,
    site: Site,
    clients: Clients,
    progress: Progress = SILENT,
) -> JobInputs:
    """Publish what is not on S3 yet.

    Raises:
        UserError, DarkroomError: files are gone, S3 refuses or cannot be reached.
    """
    if not dataset.shards:
        dataset = publish(
            dataset,
            root=site.root,
            kms_key=site.config.kms_key,
            client=clients.s3,
            progress=progress,
        )
    weights = hyperparameters.weights
    if weights not in NAMED:
        path = Path(local_weights(weights, store=workspace() / "data", progress=progress))
        uri = publish_weights(
            path.expanduser(),
            root=site.root.rstrip("/"),
            kms_key=site.config.kms_key,
            client=clients.s3,
            progress=progress,
        )
        hyperparameters = hyperparameters.replace(weights=uri)
    return JobInputs(dataset, hyperparameters)
