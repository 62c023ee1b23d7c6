"""The managed job that runs a pipeline: followed from the machine that started it."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from darkroom.backends.sagemaker.handover import COMPONENTS_BEGIN, KINDS
from darkroom.backends.sagemaker.jobs.follower import without_kind
from darkroom.backends.sagemaker.jobs.logs import JobLog
from darkroom.backends.sagemaker.retry import Backoff, Pause, Retrier, interruptible, sleep
from darkroom.backends.sagemaker.session import Clients, aws_errors_explained
from darkroom.base.errors import DarkroomError, UserError
from darkroom.base.progress import Progress

if TYPE_CHECKING:
    from mypy_boto3_sagemaker.type_defs import DescribeTrainingJobResponseTypeDef

_ENDED = ("Completed", "Failed", "Stopped")


@dataclass(frozen=True)
class OrchestrationJob:
    """A training job in SageMaker's terms, since ZenML runs its pipelines in one."""

    name: str
    clients: Clients

    def is_running(self) -> bool:
        """Whether it has not ended, nor been told to.

        Raises:
            UserError, DarkroomError: AWS refuses, or cannot be asked.
        """
        with aws_errors_explained(f"job {self.name!r}"):
            return self._describe(self.clients)["TrainingJobStatus"] == "InProgress"

    def follow(self, progress: Progress, *, pause: Pause = sleep) -> DarkroomError | None:
        """Show what it prints until it ends.

        Returns:
            Why it did not complete; None where it did.

        Raises:
            DarkroomError: AWS cannot be asked any more.
            KeyboardInterrupt: as it came; the job goes on.
        """
        log, backoff, shown, begun = JobLog(self.name), Backoff(pause), "", False
        patient = Retrier(self.clients, what=f"job {self.name!r}", pause=pause)
        with interruptible("training", self.name):
            while True:
                seen = patient.ask(self._describe)
                if seen["SecondaryStatus"] != shown:
                    shown = seen["SecondaryStatus"]
                    progress.message(f"orchestration: {shown}")
                    backoff.news()
                # After the status, so that the last lines are read too.
                for line in patient.ask(log.new_lines):
                    if begun:
                        progress.message(line)
                    begun = begun or line == COMPONENTS_BEGIN
                    backoff.news()
                if seen["TrainingJobStatus"] in _ENDED:
                    return _failure(seen, log=log)
                backoff.wait()

    def _describe(self, clients: Clients) -> "DescribeTrainingJobResponseTypeDef":
        return clients.sagemaker.describe_training_job(TrainingJobName=self.name)


def image_of_this_job(clients: Clients) -> str:
    """The image that runs this process: the one that ZenML built trains and hosts too.

    Raises:
        UserError: this is no managed job.
    """
    name = os.environ.get("TRAINING_JOB_NAME")
    if not name:
        raise UserError("DARKROOM_IMAGE is not set: name the image that holds darkroom")
    with aws_errors_explained(f"job {name!r}"):
        job = clients.sagemaker.describe_training_job(TrainingJobName=name)
    return job["AlgorithmSpecification"]["TrainingImage"]


def _failure(seen: "DescribeTrainingJobResponseTypeDef", *, log: JobLog) -> DarkroomError | None:
    if seen["TrainingJobStatus"] == "Completed":
        return None
    if seen["TrainingJobStatus"] == "Stopped":
        return DarkroomError(f"the orchestrating job was stopped: {seen['SecondaryStatus']}")
    reason = without_kind(seen.get("FailureReason", ""))
    for kind in KINDS:
        if reason.startswith(f"{kind.__name__}: "):
            return kind(reason.partition(": ")[2])
    lines = "\n".join(f"  {line}" for line in log.last_lines)
    return DarkroomError(f"{reason or 'the orchestrating job failed'}\nIts last lines:\n{lines}")
