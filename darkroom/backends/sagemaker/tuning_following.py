"""Following a tuning job and all its training jobs, until they have ended."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from darkroom.backends.sagemaker.clients import Clients
from darkroom.backends.sagemaker.following import Backoff, Patient, Pause, sleep
from darkroom.backends.sagemaker.job_failures import is_users_fault
from darkroom.backends.sagemaker.job_following import ENDED
from darkroom.backends.sagemaker.trial_jobs import TrialJob
from darkroom.config.tuning import TuningConfig
from darkroom.errors import DarkroomError, UserError
from darkroom.progress import Progress, Task
from darkroom.training.history import EpochMetrics
from darkroom.tuning.results import Trial, best_trial

if TYPE_CHECKING:
    from mypy_boto3_sagemaker.type_defs import (
        DescribeHyperParameterTuningJobResponseTypeDef,
        HyperParameterTrainingJobSummaryTypeDef,
    )


class TuningFollower:
    """One tuning job, looked at again and again."""

    def __init__(
        self,
        name: str,
        *,
        tuning: TuningConfig,
        clients: Clients,
        on_epoch: Callable[[int, EpochMetrics], None] | None,
        on_trial: Callable[[Trial], None] | None,
        pause: Pause = sleep,
    ) -> None:
        self._name, self._tuning = name, tuning
        self._on_epoch, self._on_trial = on_epoch, on_trial
        self._patient = Patient(clients, what=f"tuning job {name!r}", pause=pause)
        self._backoff = Backoff(pause)
        self._jobs: dict[str, TrialJob] = {}

    def follow(self, *, task: Task, progress: Progress) -> tuple[list[Trial], Trial]:
        """Wait for the end of the job and of all its trials.

        Returns:
            The trials by their numbers, and the best one.

        Raises:
            UserError, DarkroomError: the job failed or was stopped without a result.
        """
        state = ""
        while True:
            job = self._patient.ask(self._describe)
            if job["HyperParameterTuningJobStatus"] != state:
                state = job["HyperParameterTuningJobStatus"]
                progress.message(f"{self._name}: {state}")
            # Listed after its state is known: the trials of a job that has ended are all there.
            for summary in self._patient.ask(self._list):
                self._look(summary, task=task)
            if state in ENDED and all(trial_job.trial for trial_job in self._jobs.values()):
                return self._ended(job)
            self._backoff.wait()

    def _describe(self, clients: Clients) -> "DescribeHyperParameterTuningJobResponseTypeDef":
        return clients.sagemaker.describe_hyper_parameter_tuning_job(
            HyperParameterTuningJobName=self._name
        )

    def _list(self, clients: Clients) -> "list[HyperParameterTrainingJobSummaryTypeDef]":
        """The training jobs, oldest first."""
        pages = clients.sagemaker.get_paginator(
            "list_training_jobs_for_hyper_parameter_tuning_job"
        ).paginate(
            HyperParameterTuningJobName=self._name, SortBy="CreationTime", SortOrder="Ascending"
        )
        found = [summary for page in pages for summary in page["TrainingJobSummaries"]]
        return sorted(found, key=lambda job: (job["CreationTime"], job["TrainingJobName"]))

    def _look(self, summary: "HyperParameterTrainingJobSummaryTypeDef", *, task: Task) -> None:
        name = summary["TrainingJobName"]
        if name not in self._jobs:
            self._backoff.news()
            self._jobs[name] = TrialJob(
                name, number=len(self._jobs), objective=self._tuning.objective
            )
        job = self._jobs[name]
        if job.trial:
            return
        for epoch in self._patient.ask(job.new_epochs):
            self._tell_epoch(job.number, epoch, task=task)
        if job.has_ended(summary):
            self._tell_trial(job.trial, task=task)

    def _tell_epoch(self, number: int, epoch: EpochMetrics, *, task: Task) -> None:
        self._backoff.news()
        value = epoch.validation.get(self._tuning.objective, float("nan"))
        task.advance(
            0,
            detail=f"trial {number}, epoch {epoch.epoch}: loss {epoch.train_loss:.4f}, "
            f"{self._tuning.objective} {value:.4f}, {epoch.images_per_second:.0f} images/s",
        )
        if self._on_epoch:
            self._on_epoch(number, epoch)

    def _tell_trial(self, trial: Trial | None, *, task: Task) -> None:
        self._backoff.news()
        if trial:
            task.advance(detail=trial.in_words(self._tuning.objective))
            if self._on_trial:
                self._on_trial(trial)

    def job_of(self, trial: Trial) -> str:
        """The name of a trial's training job."""
        return next(name for name, job in self._jobs.items() if job.number == trial.number)

    def _ended(
        self, job: "DescribeHyperParameterTuningJobResponseTypeDef"
    ) -> tuple[list[Trial], Trial]:
        """What was found, if it can be used."""
        jobs = list(self._jobs.values())
        trials = [each.trial for each in jobs if each.trial]
        best = best_trial(trials, direction=self._tuning.resolved_direction)
        status = job["HyperParameterTuningJobStatus"]
        was_stopped = status == "Stopped" and not self._tuning.timeout_seconds
        if best and not was_stopped:
            return trials, best
        raise _failure(self._name, status=status, reason=job.get("FailureReason", ""), jobs=jobs)


def _failure(name: str, *, status: str, reason: str, jobs: Sequence[TrialJob]) -> DarkroomError:
    """Why there is no best trial; a UserError where all trials blame the input."""
    if status == "Stopped":
        return DarkroomError(f"tuning job {name!r} was stopped. The same command starts another.")
    failed = [job for job in jobs if job.trial and job.trial.state == "failed"]
    if not failed:
        return DarkroomError(
            f"tuning job {name!r} found nothing: {reason or 'SageMaker gives no reason'}"
        )
    reasons = sorted({job.trial.error or "" for job in failed if job.trial})
    kind = UserError if all(is_users_fault(job.reason) for job in failed) else DarkroomError
    last_lines = "\n".join(f"  {line}" for line in failed[0].last_lines)
    return kind(
        f"all {len(jobs)} trials of the tuning job {name!r} failed: {'; '.join(reasons)}. Narrow "
        "tuning.search_space, such as a lower learning_rate, or check the data.\n"
        f"The last lines of {failed[0].name!r}:\n{last_lines}"
    )
