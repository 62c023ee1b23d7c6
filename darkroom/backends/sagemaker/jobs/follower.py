"""Follow one training job until it ends: its states, log and epochs, and why it failed."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from darkroom.backends.sagemaker.jobs.logs import EpochReader, JobLog
from darkroom.backends.sagemaker.jobs.results import JobResult
from darkroom.backends.sagemaker.retry import Backoff, Pause, Retrier, sleep
from darkroom.backends.sagemaker.session import Clients
from darkroom.base.errors import DarkroomError, UserError
from darkroom.base.progress import Progress, Task
from darkroom.config import Hyperparameters
from darkroom.telemetry.epochs import EpochMetrics

if TYPE_CHECKING:
    from mypy_boto3_sagemaker.type_defs import DescribeTrainingJobResponseTypeDef


# --- job failures ---
# Why a job ended without a result, in words that say what to do.

_EXIT_CODE = re.compile(r",?\s*exit code:\s*(\d+)\s*$", re.IGNORECASE)
_KIND = re.compile(r"^(AlgorithmError|ClientError|InternalServerError|CapacityError):\s*")
_LIMITS = {
    "MaxRuntimeExceeded": "sagemaker.training.max_runtime_seconds",
    "MaxWaitTimeExceeded": "sagemaker.training.max_wait_seconds",
}


def job_failure(
    name: str, *, status: str, detail: str, reason: str, log: Sequence[str]
) -> DarkroomError:
    """The error of a training job that did not complete.

    Args:
        status: TrainingJobStatus, Failed or Stopped.
        detail: SecondaryStatus.
        reason: FailureReason.
        log: the last lines of its log.

    Returns:
        A UserError where the `train` program, or SageMaker, blames the input.
    """
    kind = UserError if is_users_fault(reason) else DarkroomError
    parts = [f"training job {name!r} {_outcome(status, detail=detail, reason=reason)}"]
    if log:
        parts.append("The last lines of its log:\n" + "\n".join(f"  {line}" for line in log))
    return kind("\n".join(parts))


def without_kind(reason: str) -> str:
    """A FailureReason without what SageMaker puts around the program's own words."""
    return _EXIT_CODE.sub("", _KIND.sub("", reason)).strip() or reason


def is_users_fault(reason: str) -> bool:
    """Whether the `train` program, or SageMaker, blames the input."""
    code = _EXIT_CODE.search(reason)
    if code:
        return int(code.group(1)) == UserError.exit_code
    return reason.startswith("ClientError")


def _outcome(status: str, *, detail: str, reason: str) -> str:
    if detail in _LIMITS:
        return (
            f"was stopped: {detail}. Raise {_LIMITS[detail]}; the same command goes on from the "
            "last checkpoint."
        )
    if status == "Stopped":
        return "was stopped. The same command goes on from the last checkpoint."
    advice = ""
    if reason.startswith(("CapacityError", "InternalServerError")):
        advice = " Run the same command again, later or with another instance type."
    return f"failed: {without_kind(reason) or 'SageMaker gives no reason'}.{advice}"


# --- following a job ---

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
        self._patient = Retrier(clients, what=f"training job {name!r}", pause=pause)
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
