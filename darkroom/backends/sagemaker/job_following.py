"""Following one training job: its states, its log, its epochs, until it ends."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from darkroom.backends.sagemaker.clients import Clients
from darkroom.backends.sagemaker.following import Backoff, Patient, Pause, sleep
from darkroom.backends.sagemaker.job_failures import job_failure
from darkroom.backends.sagemaker.job_logs import JobLog
from darkroom.backends.sagemaker.job_results import JobResult
from darkroom.backends.sagemaker.metric_lines import EpochReader
from darkroom.config import Hyperparameters
from darkroom.errors import DarkroomError
from darkroom.progress import Progress, Task
from darkroom.training.history import EpochMetrics

if TYPE_CHECKING:
    from mypy_boto3_sagemaker.type_defs import DescribeTrainingJobResponseTypeDef

ENDED = ("Completed", "Failed", "Stopped")
_LATE_LOOKS = 3
"""At the log of a failed job: its last lines may arrive after its end."""


class Epochs:
    """The epochs of a job: from its log while it runs, from its history when it has ended."""

    def __init__(self, on_epoch: Callable[[EpochMetrics], None] | None) -> None:
        self._reader, self._on_epoch = EpochReader(), on_epoch

    def read(self, lines: Iterable[str]) -> list[EpochMetrics]:
        """Those that are new in the log; each has been told of."""
        return self._tell(self._reader.read(lines))

    def complete(self, exact: Sequence[EpochMetrics]) -> list[EpochMetrics]:
        """All of them; those that the log did not show are told of now.

        Args:
            exact: the history that the job left, or nothing.

        Raises:
            DarkroomError: there is no epoch in either.
        """
        self._tell(self._reader.add(exact))
        history = list(exact) or self._reader.history
        if not history:
            raise DarkroomError("the training job left neither a history nor a log of its epochs")
        return history

    def _tell(self, epochs: Iterable[EpochMetrics]) -> list[EpochMetrics]:
        told = []
        for epoch in epochs:
            told.append(epoch)
            if self._on_epoch:
                self._on_epoch(epoch)
        return told


class TrainingFollower:
    """One job, looked at again and again."""

    def __init__(
        self,
        name: str,
        *,
        clients: Clients,
        epochs: Epochs,
        progress: Progress,
        pause: Pause = sleep,
    ) -> None:
        self._name, self._epochs, self._progress = name, epochs, progress
        self._patient = Patient(clients, what=f"training job {name!r}", pause=pause)
        self._backoff, self._log = Backoff(pause), JobLog(name)
        self._states_shown = 0

    def follow(self, hyperparameters: Hyperparameters, *, task: Task) -> JobResult:
        """Wait for the job's end; epochs and changes of state are shown as they come.

        Raises:
            UserError, DarkroomError: it failed or was stopped, with the reason.
        """
        while True:
            job = self._patient.ask(self._describe)
            self._show_states(job)
            self._read_log(hyperparameters, task=task)
            if job["TrainingJobStatus"] in ENDED:
                return self._result(job)
            self._backoff.wait()

    def _describe(self, clients: Clients) -> "DescribeTrainingJobResponseTypeDef":
        return clients.sagemaker.describe_training_job(TrainingJobName=self._name)

    def _show_states(self, job: "DescribeTrainingJobResponseTypeDef") -> None:
        """Every state since the last look, also those that have passed again."""
        transitions = job.get("SecondaryStatusTransitions", [])
        for transition in transitions[self._states_shown :]:
            message = transition.get("StatusMessage", "")
            self._progress.message(
                f"{self._name}: {transition['Status']}{': ' if message else ''}{message}"
            )
            self._backoff.news()
        self._states_shown = len(transitions)

    def _read_log(self, hyperparameters: Hyperparameters, *, task: Task) -> None:
        lines = self._patient.ask(self._log.new_lines)
        for epoch in self._epochs.read(lines):
            self._backoff.news()
            task.advance(
                detail=epoch.headline(
                    epochs=hyperparameters.epochs, objective=hyperparameters.objective
                )
            )

    def _result(self, job: "DescribeTrainingJobResponseTypeDef") -> JobResult:
        if job["TrainingJobStatus"] == "Completed":
            return JobResult(self._name, model=job["ModelArtifacts"]["S3ModelArtifacts"])
        for _ in range(_LATE_LOOKS):
            if self._log.last_lines:
                break
            self._backoff.wait()
            self._patient.ask(self._log.new_lines)
        raise job_failure(
            self._name,
            status=job["TrainingJobStatus"],
            detail=job["SecondaryStatus"],
            reason=job.get("FailureReason", ""),
            log=self._log.last_lines,
        )
