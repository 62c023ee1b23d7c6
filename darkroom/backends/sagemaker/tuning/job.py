"""A search as a managed tuning job: its request; found or started, followed with all its trials."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from darkroom.backends.sagemaker.jobs.attempts import JobInputs, bring_inputs, start_or_find
from darkroom.backends.sagemaker.jobs.follower import ENDED, is_users_fault, without_kind
from darkroom.backends.sagemaker.jobs.logs import EpochReader, JobLog
from darkroom.backends.sagemaker.jobs.results import JobResult, ResultStore
from darkroom.backends.sagemaker.resources import (
    JobIdentity,
    tags_of,
    take_over,
    training_identity,
    tuning_identity,
)
from darkroom.backends.sagemaker.retry import Backoff, Pause, Retrier, interruptible, sleep
from darkroom.backends.sagemaker.session import Clients, SageMakerContext
from darkroom.backends.sagemaker.training.job import Request, checkpoint_config, job_definition
from darkroom.base.errors import DarkroomError, UserError
from darkroom.base.progress import SILENT, Progress, Task
from darkroom.config import Hyperparameters
from darkroom.config.debugging import NO_DEBUGGING, Debugging
from darkroom.config.sagemaker import TuningJobConfig
from darkroom.config.sections import Metric
from darkroom.config.tuning import (
    Dimension,
    FloatChoices,
    FloatRange,
    IntRange,
    TuningConfig,
    dimensions,
    grid_values,
    trials_wanted,
)
from darkroom.data.dataset import Dataset
from darkroom.telemetry.epochs import EpochMetrics
from darkroom.training.hyperparameters import debugging_strings, encoded, from_strings, to_strings
from darkroom.tuning.results import State, Trial, TuningResult, Value, best_trial, tuning_result

if TYPE_CHECKING:
    from mypy_boto3_sagemaker.type_defs import (
        DescribeHyperParameterTuningJobResponseTypeDef,
        HyperParameterTrainingJobSummaryTypeDef,
    )


# --- the request ---
# Requests of tuning jobs.

_VALUES_AFTER_EPOCHS = 1
"""A job emits the objective once an epoch, and at its end once more: that of the kept epoch.

SageMaker stops a job that reaches Hyperband's MaxResource (developer guide, "Hyperband"), so that
it has to be more than all of them: a job that is stopped at its last line is no complete trial."""

_STRATEGIES = {"tpe": "Bayesian", "random": "Random", "grid": "Grid", "hyperband": "Hyperband"}


def tuning_request(
    name: str,
    *,
    identity: JobIdentity,
    dataset: str,
    hyperparameters: Hyperparameters,
    tuning: TuningConfig,
    debugging: Debugging,
    site: SageMakerContext,
    weights: str = "",
) -> Request:
    """CreateHyperParameterTuningJob.

    Args:
        dataset: s3:// URI of the published data set.
        hyperparameters: the values that are not searched; its seed is the search's.
        weights: s3:// prefix where the initial weights lie; empty: on S3 are none.

    Raises:
        UserError: a grid with a continuous dimension.
    """
    checkpoints = {"CheckpointConfig": checkpoint_config(identity, site=site)}
    return {
        "HyperParameterTuningJobName": name,
        "HyperParameterTuningJobConfig": _search(
            tuning, hyperparameters=hyperparameters, jobs=site.config.tuning
        ),
        "TrainingJobDefinition": {
            "StaticHyperParameters": {
                **_static_strings(hyperparameters, tuning=tuning),
                **debugging_strings(debugging.of_trials),
            },
            **job_definition(identity, dataset=dataset, site=site, weights=weights),
            **(checkpoints if site.config.training.spot else {}),
        },
        **_warm_start(site.config.tuning),
        "Tags": tags_of(site, identity=identity.digest, kind=identity.kind),
    }


def _search(
    tuning: TuningConfig, *, hyperparameters: Hyperparameters, jobs: TuningJobConfig
) -> Request:
    return {
        **_strategy(tuning, epochs=hyperparameters.epochs),
        "HyperParameterTuningJobObjective": {
            "Type": tuning.resolved_direction.capitalize(),
            "MetricName": f"validation_{tuning.objective}",
        },
        "ResourceLimits": _limits(tuning, jobs=jobs),
        "ParameterRanges": _ranges(tuning),
        "TrainingJobEarlyStoppingType": _early_stopping(tuning),
        **_completion(tuning, jobs=jobs),
        "RandomSeed": hyperparameters.seed,
    }


def _static_strings(hyperparameters: Hyperparameters, *, tuning: TuningConfig) -> dict[str, str]:
    """The hyperparameters that are not searched, as SageMaker carries them."""
    searched = dimensions(tuning.search_space)
    return {
        name: text for name, text in to_strings(hyperparameters).items() if name not in searched
    }


def _strategy(tuning: TuningConfig, *, epochs: int) -> Request:
    if tuning.strategy != "hyperband":
        return {"Strategy": _STRATEGIES[tuning.strategy]}
    return {
        "Strategy": "Hyperband",
        "StrategyConfig": {
            "HyperbandStrategyConfig": {
                "MinResource": 1,
                "MaxResource": epochs + _VALUES_AFTER_EPOCHS + 1,
            }
        },
    }


def _limits(tuning: TuningConfig, *, jobs: TuningJobConfig) -> Request:
    """A grid's number of jobs follows from its ranges, and AWS refuses to be told."""
    wanted = trials_wanted(tuning)
    return {
        **({} if tuning.strategy == "grid" else {"MaxNumberOfTrainingJobs": wanted}),
        "MaxParallelTrainingJobs": min(jobs.parallel_jobs, wanted),
        **({"MaxRuntimeInSeconds": ceil(tuning.timeout_seconds)} if tuning.timeout_seconds else {}),
    }


def _early_stopping(tuning: TuningConfig) -> str:
    """Hyperband stops jobs by itself, and AWS refuses both together."""
    return "Auto" if tuning.pruning == "median" and tuning.strategy != "hyperband" else "Off"


def _ranges(tuning: TuningConfig) -> Request:
    ranges: dict[str, list[Request]] = {
        "ContinuousParameterRanges": [],
        "IntegerParameterRanges": [],
        "CategoricalParameterRanges": [],
    }
    for name, searched in dimensions(tuning.search_space).items():
        if _is_categorical(searched, tuning=tuning):
            values = [encoded(value) for value in grid_values(name, searched=searched)]
            ranges["CategoricalParameterRanges"].append({"Name": name, "Values": values})
        elif isinstance(searched, FloatRange):
            ranges["ContinuousParameterRanges"].append(_range(name, searched=searched))
        elif isinstance(searched, IntRange):
            ranges["IntegerParameterRanges"].append(_range(name, searched=searched))
    return {kind: each for kind, each in ranges.items() if each}


def _is_categorical(searched: Dimension, *, tuning: TuningConfig) -> bool:
    """A grid has nothing else; and a range of one value is none."""
    if tuning.strategy == "grid" or isinstance(searched, FloatChoices):
        return True
    return isinstance(searched, IntRange) and searched.low == searched.high


def _range(name: str, *, searched: FloatRange | IntRange) -> Request:
    return {
        "Name": name,
        "MinValue": repr(searched.low),
        "MaxValue": repr(searched.high),
        "ScalingType": "Logarithmic" if searched.log else "Linear",
    }


def _completion(tuning: TuningConfig, *, jobs: TuningJobConfig) -> Request:
    criteria: Request = {}
    if tuning.target_value is not None:
        criteria["TargetObjectiveMetricValue"] = tuning.target_value
    if tuning.patience_trials:
        criteria["BestObjectiveNotImproving"] = {
            "MaxNumberOfTrainingJobsNotImproving": tuning.patience_trials
        }
    if jobs.stop_when_converged:
        criteria["ConvergenceDetected"] = {"CompleteOnConvergence": "Enabled"}
    return {"TuningJobCompletionCriteria": criteria} if criteria else {}


def _warm_start(jobs: TuningJobConfig) -> Request:
    if not jobs.warm_start_from:
        return {}
    return {
        "WarmStartConfig": {
            "ParentHyperParameterTuningJobs": [
                {"HyperParameterTuningJobName": name} for name in jobs.warm_start_from
            ],
            "WarmStartType": jobs.warm_start_type,
        }
    }


# --- trial jobs ---
# The training jobs of a tuning, as trials of a search.

_STATES: dict[str, State] = {"Completed": "complete", "Stopped": "pruned", "Failed": "failed"}
_LATE_LOOKS = 3
"""At the log of a job that is complete, while it lacks the line that comes last."""


class TrialJob:
    """One training job of a tuning, looked at again and again."""

    def __init__(self, name: str, *, number: int, objective: Metric) -> None:
        self.name, self.number, self._objective = name, number, objective
        self._log, self._epochs = JobLog(name), EpochReader()
        self._late_looks = 0
        self.trial: Trial | None = None
        """What came of it, once it has ended."""
        self.reason = ""
        """Why it failed, in SageMaker's words."""

    @property
    def last_lines(self) -> list[str]:
        """Of its log."""
        return self._log.last_lines

    def new_epochs(self, clients: Clients) -> list[EpochMetrics]:
        """The epochs that came since the last look at the log."""
        return list(self._epochs.read(self._log.new_lines(clients)))

    def has_ended(self, summary: "HyperParameterTrainingJobSummaryTypeDef") -> bool:
        """Take note of the job's state, after its log was read.

        A complete job whose log lacks its end has not ended yet: lines may arrive late.
        """
        status = summary["TrainingJobStatus"]
        if status not in ENDED:
            return False
        if status == "Completed" and not self._epochs.kept and self._late_looks < _LATE_LOOKS:
            self._late_looks += 1
            return False
        self.reason = summary.get("FailureReason", "")
        self.trial = self._trial(summary)
        return True

    def _trial(self, summary: "HyperParameterTrainingJobSummaryTypeDef") -> Trial:
        state, objective = _STATES[summary["TrainingJobStatus"]], self._value(summary)
        error = without_kind(self.reason) if state == "failed" else None
        if state == "complete" and objective is None:
            state, error = "failed", f"its log shows no validation {self._objective}"
        history = self._epochs.history
        return Trial(
            number=self.number,
            values=typed_values(summary["TunedHyperParameters"]),
            state=state,
            objective=None if state == "failed" else objective,
            epochs=history[-1].epoch if history else 0,
            seconds=_seconds(summary),
            error=error,
        )

    def _value(self, summary: "HyperParameterTrainingJobSummaryTypeDef") -> float | None:
        """Of the kept epoch, or the last: by the log, which has more digits than the API."""
        if self._objective in self._epochs.kept:
            return self._epochs.kept[self._objective]
        final = summary.get("FinalHyperParameterTuningJobObjectiveMetric")
        if final:
            return final["Value"]
        history = self._epochs.history
        return history[-1].validation.get(self._objective) if history else None


def typed_values(tuned: Mapping[str, str]) -> dict[str, Value]:
    """What SageMaker chose, as numbers.

    Raises:
        UserError: they are no hyperparameters of ours.
    """
    hyperparameters = from_strings(tuned).model_dump()
    return {name: value for name, value in hyperparameters.items() if name in tuned}


def _seconds(summary: "HyperParameterTrainingJobSummaryTypeDef") -> float:
    start, end = summary.get("TrainingStartTime"), summary.get("TrainingEndTime")
    return (end - start).total_seconds() if start and end else 0.0


# --- following a tuning ---
# Following a tuning job and all its training jobs, until they have ended.


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
        self._patient = Retrier(clients, what=f"tuning job {name!r}", pause=pause)
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


# --- the job ---


def run_tuning(
    dataset: Dataset,
    *,
    hyperparameters: Hyperparameters,
    tuning: TuningConfig,
    site: SageMakerContext,
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
    site: SageMakerContext

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
        patient = Retrier(clients, what=f"training job {job!r}", pause=pause)
        described = patient.ask(lambda c: c.sagemaker.describe_training_job(TrainingJobName=job))
        identity = training_identity(
            self.inputs.dataset,
            hyperparameters=self.inputs.hyperparameters.replace(**best.values),
            recording=self.debugging.recording,
            site=self.site,
        )
        result = JobResult(job, model=described["ModelArtifacts"]["S3ModelArtifacts"])
        ResultStore(self.site, clients=clients, pause=pause).note(identity, result=result)
