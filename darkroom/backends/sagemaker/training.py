"""A training as a managed job: found or started, followed, and its model fetched."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from darkroom.backends.results import FailedTrainingError, TrainedBundle
from darkroom.backends.sagemaker.attempts import start_or_find
from darkroom.backends.sagemaker.clients import Clients
from darkroom.backends.sagemaker.following import Pause, interruptible, sleep
from darkroom.backends.sagemaker.identity import JobIdentity, take_over, training_identity
from darkroom.backends.sagemaker.job_following import Epochs, TrainingFollower
from darkroom.backends.sagemaker.job_inputs import JobInputs, bring_inputs
from darkroom.backends.sagemaker.job_results import JobResult, ResultStore
from darkroom.backends.sagemaker.requests.training import training_request
from darkroom.backends.sagemaker.site import Site
from darkroom.config import Hyperparameters
from darkroom.config.debugging import NO_DEBUGGING, Debugging
from darkroom.dataset import Dataset
from darkroom.errors import DarkroomError, UserError
from darkroom.progress import SILENT, Progress
from darkroom.training.history import EpochMetrics, best_epoch


def run_training(
    dataset: Dataset,
    *,
    hyperparameters: Hyperparameters,
    site: Site,
    clients: Clients,
    folder: Path,
    debugging: Debugging = NO_DEBUGGING,
    on_epoch: Callable[[EpochMetrics], None] | None = None,
    progress: Progress = SILENT,
    pause: Pause = sleep,
) -> TrainedBundle:
    """Train in a managed job, and fetch the bundle to `folder/bundles/<version>`.

    A job that an earlier start left running is followed, the result of a completed one is
    used, and one that failed or was stopped is gone on from where its checkpoints are.

    Args:
        debugging: how the training is recorded and judged.
        on_epoch: called with each epoch, once and in order, while the job runs.

    Raises:
        UserError: data, weights or hyperparameters cannot be trained with; AWS refuses.
        DarkroomError: the job failed, with its reason and the last lines of its log.
        JobInterrupted: the user interrupted; the job goes on.
    """
    inputs = bring_inputs(
        dataset, hyperparameters=hyperparameters, site=site, clients=clients, progress=progress
    )
    identity = training_identity(
        inputs.dataset,
        hyperparameters=inputs.hyperparameters,
        recording=debugging.recording,
        site=site,
    )
    recordings = folder / "recordings"
    store, epochs = ResultStore(site, clients=clients, pause=pause), Epochs(on_epoch)
    if result := store.look_up(identity):
        progress.message(f"training job {result.job!r} has done this: its result is used")
    else:
        job = _Job(identity, inputs=inputs, debugging=debugging, site=site)
        with _recording_kept_on_failure(store, identity=identity, folder=recordings):
            result = job.run(clients, epochs=epochs, progress=progress, pause=pause)
        store.note(identity, result=result)
    with progress.task(f"fetching {result.model}"):
        bundle = store.fetch_bundle(result, folder=folder / "bundles", dataset=dataset)
        left = store.fetch_output(result, recording=recordings / identity.digest)
        history = epochs.complete(left.history)
    best = best_epoch(history, objective=hyperparameters.objective)
    return TrainedBundle(
        bundle, history=history, best_epoch=best, job=result.job, recording=left.recording
    )


@contextmanager
def _recording_kept_on_failure(
    store: ResultStore, *, identity: JobIdentity, folder: Path
) -> Iterator[None]:
    """Fetch what a failed job has recorded, from beside its checkpoints."""
    try:
        yield
    except UserError:
        raise
    except DarkroomError as error:
        recording = store.fetch_unfinished_recording(identity, to=folder / identity.digest)
        if recording is None:
            raise
        raise FailedTrainingError(str(error), recording=recording) from error


@dataclass(frozen=True)
class _Job:
    """A training, whichever attempt does it."""

    identity: JobIdentity
    inputs: JobInputs
    debugging: Debugging
    site: Site

    def run(
        self, clients: Clients, *, epochs: Epochs, progress: Progress, pause: Pause
    ) -> JobResult:
        """Find or start the job, and follow it to its end."""
        name = start_or_find(
            self.identity,
            status_of=_status,
            create=self._create,
            take_over=self._take_over,
            clients=clients,
            progress=progress,
            pause=pause,
        )
        hyperparameters = self.inputs.hyperparameters
        follower = TrainingFollower(
            name, clients=clients, epochs=epochs, progress=progress, pause=pause
        )
        with (
            interruptible("training", name),
            progress.task(f"training job {name}", total=hyperparameters.epochs) as task,
        ):
            return follower.follow(hyperparameters, task=task)

    def _create(self, clients: Clients, name: str) -> None:
        request = training_request(
            name,
            identity=self.identity,
            dataset=self.inputs.dataset.shards,
            hyperparameters=self.inputs.hyperparameters,
            debugging=self.debugging,
            site=self.site,
            weights=self.inputs.weights,
        )
        clients.sagemaker.create_training_job(**request)

    def _take_over(self, clients: Clients, name: str) -> None:
        job = clients.sagemaker.describe_training_job(TrainingJobName=name)
        take_over(job["TrainingJobArn"], site=self.site, clients=clients)


def _status(clients: Clients, name: str) -> str:
    return clients.sagemaker.describe_training_job(TrainingJobName=name)["TrainingJobStatus"]
