"""What jobs read from S3: the published data set, and initial weights of the user's."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from darkroom.backends.published_datasets import publish
from darkroom.backends.sagemaker.clients import Clients
from darkroom.backends.sagemaker.site import Site
from darkroom.backends.storage import upload_folder
from darkroom.backends.weights import local_weights
from darkroom.config import Hyperparameters
from darkroom.dataset import Dataset
from darkroom.files import sha256_of, workspace
from darkroom.model.bundle import METADATA_FILE
from darkroom.progress import SILENT, Progress

_NOT_ON_S3 = ("imagenet", "none")


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
        return "" if weights in _NOT_ON_S3 else weights


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
        dataset = publish(dataset, root=site.root, client=clients.s3, progress=progress)
    weights = hyperparameters.weights
    if weights not in _NOT_ON_S3:
        path = Path(local_weights(weights, store=workspace() / "data", progress=progress))
        uri = _upload_weights(path.expanduser(), site=site, clients=clients, progress=progress)
        hyperparameters = hyperparameters.replace(weights=uri)
    return JobInputs(dataset, hyperparameters)


def _upload_weights(path: Path, *, site: Site, clients: Clients, progress: Progress) -> str:
    """Upload a file, or a bundle's files, below a prefix that is named by their content."""
    content = path / METADATA_FILE if path.is_dir() else path
    uri = f"{site.uri('weights', sha256_of(content)[:16])}/"
    with TemporaryDirectory(prefix="darkroom-weights-") as scratch:
        folder = path
        if not path.is_dir():
            folder = Path(scratch)
            shutil.copyfile(path, folder / path.name)
        upload_folder(folder, uri=uri, client=clients.s3, progress=progress)
    return uri
