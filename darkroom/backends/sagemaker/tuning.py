"""A search as a managed tuning job: found or started, followed with all its training jobs."""

from collections.abc import Callable
from dataclasses import dataclass

from darkroom.backends.sagemaker.attempts import start_or_find
from darkroom.backends.sagemaker.clients import Clients
from darkroom.backends.sagemaker.following import Patient, Pause, interruptible, sleep
from darkroom.backends.sagemaker.identity import (
    JobIdentity,
    take_over,
    training_identity,
    tuning_identity,
)
from darkroom.backends.sagemaker.job_inputs import JobInputs, bring_inputs
from darkroom.backends.sagemaker.job_results import JobResult, ResultStore
from darkroom.backends.sagemaker.requests.tuning import tuning_request
from darkroom.backends.sagemaker.site import Site
from darkroom.backends.sagemaker.tuning_following import TuningFollower
from darkroom.config import Hyperparameters
from darkroom.config.debugging import NO_DEBUGGING, Debugging
from darkroom.config.grid import trials_wanted
from darkroom.config.tuning import TuningConfig
from darkroom.dataset import Dataset
from darkroom.progress import SILENT, Progress
from darkroom.training.history import EpochMetrics
from darkroom.tuning.results import Trial, TuningResult, tuning_result


def run_tuning(
    dataset: Dataset,
    *,
    hyperparameters: Hyperparameters,
    tuning: TuningConfig,
    site: Site,
    clients: Clients,
    debugging: Debugging = NO_DEBUGGING,
    on_epoch: Callable[[int, EpochMetrics], None] | None = None,
    on_trial: Callable[[Trial], None] | None = None,
    progress: Progress = SILENT,
    pause: Pause = sleep,
) -> TuningResult:
    """Search in a managed tuning job, found if an earlier start created it.

    Each trial is a training job; the best one's model is handed over to the final training.

    Args:
        on_epoch: called with a trial's number and each of its epochs, while it runs.
        on_trial: called with each trial that ends or has ended.

    Raises:
        UserError: data, weights or the search cannot be; AWS refuses.
        DarkroomError: the job was stopped, or all its trials failed.
        JobInterrupted: the user interrupted; the job goes on.
    """
    inputs = bring_inputs(
        dataset, hyperparameters=hyperparameters, site=site, clients=clients, progress=progress
    )
    search = _Search(inputs, tuning=tuning, debugging=debugging, site=site)
    name = search.start_or_find(clients, progress=progress, pause=pause)
    follower = TuningFollower(
        name, tuning=tuning, clients=clients, on_epoch=on_epoch, on_trial=on_trial, pause=pause
    )
    with (
        interruptible("tuning", name),
        progress.task(f"tuning job {name}", total=trials_wanted(tuning)) as task,
    ):
        trials, best = follower.follow(task=task, progress=progress)
    search.hand_over(best, job=follower.job_of(best), clients=clients, pause=pause)
    return tuning_result(trials, best=best, tuning=tuning)


@dataclass(frozen=True)
class _Search:
    """A tuning, whichever attempt does it."""

    inputs: JobInputs
    tuning: TuningConfig
    debugging: Debugging
    site: Site

    @property
    def identity(self) -> JobIdentity:
        return tuning_identity(
            self.inputs.dataset,
            hyperparameters=self.inputs.hyperparameters,
            tuning=self.tuning,
            recording=self.debugging.recording,
            site=self.site,
        )

    def start_or_find(self, clients: Clients, *, progress: Progress, pause: Pause) -> str:
        """The name of the job to follow."""
        return start_or_find(
            self.identity,
            status_of=self._status,
            create=self._create,
            take_over=self._take_over,
            clients=clients,
            progress=progress,
            pause=pause,
        )

    def _create(self, clients: Clients, name: str) -> None:
        request = tuning_request(
            name,
            identity=self.identity,
            dataset=self.inputs.dataset.shards,
            hyperparameters=self.inputs.hyperparameters,
            tuning=self.tuning,
            debugging=self.debugging,
            site=self.site,
            weights=self.inputs.weights,
        )
        clients.sagemaker.create_hyper_parameter_tuning_job(**request)

    def _take_over(self, clients: Clients, name: str) -> None:
        job = clients.sagemaker.describe_hyper_parameter_tuning_job(
            HyperParameterTuningJobName=name
        )
        take_over(job["HyperParameterTuningJobArn"], site=self.site, clients=clients)

    def _status(self, clients: Clients, name: str) -> str:
        """Of a job; one that its time limit stopped after it found something is complete."""
        job = clients.sagemaker.describe_hyper_parameter_tuning_job(
            HyperParameterTuningJobName=name
        )
        status = job["HyperParameterTuningJobStatus"]
        is_timed_out = status == "Stopped" and self.tuning.timeout_seconds
        return "Completed" if is_timed_out and "BestTrainingJob" in job else status

    def hand_over(self, best: Trial, *, job: str, clients: Clients, pause: Pause) -> None:
        """Note the best trial's job as the one that did the final training.

        It is the same job, number for number, so it need not be paid for twice.
        """
        patient = Patient(clients, what=f"training job {job!r}", pause=pause)
        described = patient.ask(lambda c: c.sagemaker.describe_training_job(TrainingJobName=job))
        identity = training_identity(
            self.inputs.dataset,
            hyperparameters=self.inputs.hyperparameters.replace(**best.values),
            recording=self.debugging.recording,
            site=self.site,
        )
        result = JobResult(job, model=described["ModelArtifacts"]["S3ModelArtifacts"])
        ResultStore(self.site, clients=clients, pause=pause).note(identity, result=result)
