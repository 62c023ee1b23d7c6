"""The managed job that runs a pipeline: followed from the machine that started it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from darkroom.backends.sagemaker.clients import Clients
from darkroom.backends.sagemaker.following import Backoff, Patient, Pause, interruptible, sleep
from darkroom.backends.sagemaker.job_failures import without_kind
from darkroom.backends.sagemaker.job_logs import JobLog
from darkroom.errors import DarkroomError, UserError
from darkroom.progress import Progress

if TYPE_CHECKING:
    from mypy_boto3_sagemaker.type_defs import DescribeTrainingJobResponseTypeDef

FAILURE_FILE = Path("/opt/ml/output/failure")
"""What a job writes there becomes its FailureReason."""
_ENDED = ("Completed", "Failed", "Stopped")
_KINDS: tuple[type[DarkroomError], ...] = (UserError, DarkroomError)
"""Errors whose own words are enough, as they are marked in the failure file."""


@dataclass(frozen=True)
class OrchestrationJob:
    """A training job in SageMaker's terms, since ZenML runs its pipelines in one."""

    name: str
    clients: Clients

    def follow(self, progress: Progress, *, pause: Pause = sleep) -> DarkroomError | None:
        """Show what it prints until it ends.

        Returns:
            Why it did not complete; None where it did.

        Raises:
            DarkroomError: AWS cannot be asked any more.
            KeyboardInterrupt: as it came; the job goes on.
        """
        log, backoff, shown = JobLog(self.name), Backoff(pause), ""
        patient = Patient(self.clients, what=f"job {self.name!r}", pause=pause)
        with interruptible("training", self.name):
            while True:
                seen = patient.ask(self._describe)
                if seen["SecondaryStatus"] != shown:
                    shown = seen["SecondaryStatus"]
                    progress.message(f"orchestration: {shown}")
                    backoff.news()
                # After the status, so that the last lines are read too.
                for line in patient.ask(log.new_lines):
                    progress.message(line)
                    backoff.news()
                if seen["TrainingJobStatus"] in _ENDED:
                    return _failure(seen, log=log)
                backoff.wait()

    def stop(self) -> None:
        """Ask it to end; fine if it has ended."""
        if self._describe(self.clients)["TrainingJobStatus"] == "InProgress":
            self.clients.sagemaker.stop_training_job(TrainingJobName=self.name)

    def _describe(self, clients: Clients) -> "DescribeTrainingJobResponseTypeDef":
        return clients.sagemaker.describe_training_job(TrainingJobName=self.name)


def leave_reason(exception: BaseException, *, file: Path = FAILURE_FILE) -> None:
    """In the job: say why a component failed, such that whoever follows is told so."""
    if file.parent.is_dir():
        kind = next((k.__name__ for k in _KINDS if isinstance(exception, k)), None)
        name = kind or type(exception).__name__
        file.write_text(f"{name}: {exception}", encoding="utf-8")


def _failure(seen: "DescribeTrainingJobResponseTypeDef", *, log: JobLog) -> DarkroomError | None:
    if seen["TrainingJobStatus"] == "Completed":
        return None
    if seen["TrainingJobStatus"] == "Stopped":
        return DarkroomError(f"the orchestrating job was stopped: {seen['SecondaryStatus']}")
    reason = without_kind(seen.get("FailureReason", ""))
    for kind in _KINDS:
        if reason.startswith(f"{kind.__name__}: "):
            return kind(reason.partition(": ")[2])
    lines = "\n".join(f"  {line}" for line in log.last_lines)
    return DarkroomError(f"{reason or 'the orchestrating job failed'}\nIts last lines:\n{lines}")
