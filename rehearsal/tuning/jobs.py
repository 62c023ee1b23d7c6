"""A tuning job as it is kept, and as DescribeHyperParameterTuningJob shows it."""

import threading
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from statistics import fmean, median
from typing import Any

from rehearsal.emulator.errors import not_found
from rehearsal.emulator.records import Record, recorded
from rehearsal.emulator.state import State, now
from rehearsal.jobs.training_job import ENDED, TrainingJob, describe
from rehearsal.tuning.space import Values

# --- criteria ---
# When a training job is stopped early, and when a tuning job has found enough.

_JOBS_TO_COMPARE = 3
"""Earlier jobs that must have come as far; AWS does not publish how many it asks for."""

_CONVERGED_JOBS = 10
_CONVERGED_SHARE = 0.001
"""AWS does not publish its test of convergence; here: the best of all jobs gained less than this
share of the spread of all objectives in the last ten jobs."""


def falls_behind_median(
    values: Sequence[float], *, earlier: Sequence[Sequence[float]], maximize: bool
) -> bool:
    """Early stopping `Auto`: worse than the median of the earlier jobs' running averages.

    values, earlier: the objective metric as emitted, step by step, by the job in question and by
    those before it. Compared at the last step of `values`, with jobs that came as far
    (SageMaker's developer guide, "Stop Training Jobs Early").
    """
    step = len(values)
    averages = [fmean(each[:step]) for each in earlier if len(each) >= step > 0]
    if len(averages) < _JOBS_TO_COMPARE:
        return False
    middle = median(averages)
    return values[-1] < middle if maximize else values[-1] > middle


@dataclass(frozen=True)
class Criteria:
    """TuningJobCompletionCriteria of a request."""

    maximize: bool
    target: float | None
    patience: int | None
    """Jobs in a row without a better objective."""
    convergence: bool

    def fulfilled(self, objectives: Sequence[float]) -> str | None:
        """The name of the criterion that ends the search; objectives in order of completion."""
        if self.target is not None and self._reached(objectives):
            return "TargetObjectiveMetricValue"
        if self.patience is not None and jobs_without_improvement(
            objectives, maximize=self.maximize
        ) >= max(self.patience, 1):
            return "BestObjectiveNotImproving"
        if self.convergence and _converged(objectives, maximize=self.maximize):
            return "ConvergenceDetected"
        return None

    def _reached(self, objectives: Sequence[float]) -> bool:
        sign = 1 if self.maximize else -1
        return any(sign * value >= sign * float(self.target or 0) for value in objectives)


def read_criteria(config: Mapping[str, Any]) -> Criteria:
    """The criteria of a HyperParameterTuningJobConfig."""
    given = config.get("TuningJobCompletionCriteria", {})
    return Criteria(
        maximize=config["HyperParameterTuningJobObjective"]["Type"] == "Maximize",
        target=given.get("TargetObjectiveMetricValue"),
        patience=given.get("BestObjectiveNotImproving", {}).get(
            "MaxNumberOfTrainingJobsNotImproving"
        ),
        convergence=given.get("ConvergenceDetected", {}).get("CompleteOnConvergence") == "Enabled",
    )


def jobs_without_improvement(objectives: Sequence[float], *, maximize: bool) -> int:
    """How many of the last jobs did not better the best before them."""
    if not objectives:
        return 0
    best = (max if maximize else min)(objectives)
    return len(objectives) - 1 - list(objectives).index(best)


def _converged(objectives: Sequence[float], *, maximize: bool) -> bool:
    if len(objectives) < 2 * _CONVERGED_JOBS:
        return False
    choose = max if maximize else min
    gain = abs(choose(objectives) - choose(objectives[:-_CONVERGED_JOBS]))
    return gain <= _CONVERGED_SHARE * (max(objectives) - min(objectives))


# --- child requests ---
# The training job that a tuning job starts: its definition, with values filled in.

OBJECTIVE_HYPERPARAMETER = "_tuning_objective_metric"
"""Tells the container what is sought; SageMaker adds it to every job of a tuning."""

_COPIED = (
    "RoleArn",
    "InputDataConfig",
    "VpcConfig",
    "OutputDataConfig",
    "StoppingCondition",
    "EnableNetworkIsolation",
    "EnableInterContainerTrafficEncryption",
    "EnableManagedSpotTraining",
    "RetryStrategy",
    "Environment",
)
_NAME_LENGTH = 32
"""Names of tuning jobs are at most 32 characters, so that children's fit into 63."""


def child_name(tuning: str, *, number: int) -> str:
    """Such as `digits-001-1f0c3a9e`."""
    return f"{tuning[:_NAME_LENGTH]}-{number:03d}-{uuid.uuid4().hex[:8]}"


def child_request(
    definition: Mapping[str, Any], *, name: str, tuned: Values, objective: str
) -> dict[str, Any]:
    """A CreateTrainingJob request.

    Args:
        definition: TrainingJobDefinition; its machines may be given as ResourceConfig or as
            HyperParameterTuningResourceConfig.
        tuned: the values to try; they win over StaticHyperParameters.
        objective: name of the objective metric.
    """
    request = {key: definition[key] for key in _COPIED if key in definition}
    static = definition.get("StaticHyperParameters", {})
    request |= {
        "TrainingJobName": name,
        "AlgorithmSpecification": definition["AlgorithmSpecification"],
        "HyperParameters": {**static, **tuned, OBJECTIVE_HYPERPARAMETER: objective},
        "ResourceConfig": resources_of(definition),
    }
    if "CheckpointConfig" in definition:
        request["CheckpointConfig"] = _own_checkpoints(definition["CheckpointConfig"], name=name)
    return request


def resources_of(definition: Mapping[str, Any]) -> dict[str, Any]:
    """One instance group of a tuning's own form, in a training job's."""
    if "ResourceConfig" in definition:
        return dict(definition["ResourceConfig"])
    given = definition["HyperParameterTuningResourceConfig"]
    named = ("InstanceType", "InstanceCount", "VolumeSizeInGB", "VolumeKmsKeyId")
    resources = {name: given[name] for name in named if name in given}
    if given.get("InstanceConfigs"):
        # AWS takes the first type that it has; here there is always the first.
        resources |= given["InstanceConfigs"][0]
    return {"InstanceCount": 1, "VolumeSizeInGB": 30, **resources}


def _own_checkpoints(config: Mapping[str, str], *, name: str) -> dict[str, str]:
    """A place for each job, lest jobs go on from each other's checkpoints."""
    return {**config, "S3Uri": f"{config['S3Uri'].rstrip('/')}/{name}"}


# --- jobs ---

_SHOWN = (
    "HyperParameterTuningJobConfig",
    "WarmStartConfig",
    "Autotune",
)


@dataclass
class Child:
    """One training job of a tuning job."""

    job: TrainingJob
    tuned: Values
    objective_name: str

    @property
    def values(self) -> list[float]:
        """The objective metric, as emitted step by step."""
        return [p.value for p in list(self.job.metrics) if p.name == self.objective_name]

    @property
    def objective(self) -> float | None:
        """Its last value, once the job has ended well or was stopped; None: there is none."""
        values = self.values
        return values[-1] if values and self.job.status in ("Completed", "Stopped") else None

    @property
    def objective_status(self) -> str:
        """Pending, Succeeded or Failed."""
        if self.job.status not in ENDED:
            return "Pending"
        return "Failed" if self.objective is None else "Succeeded"


@dataclass
class TuningJob:
    """One tuning job, changed by its own thread."""

    request: Mapping[str, Any]
    arn: str
    created: datetime = field(default_factory=now)
    status: str = "InProgress"
    failure: str = ""
    modified: datetime = field(default_factory=now)
    ended: datetime | None = None
    children: list[Child] = field(default_factory=list)
    """In the order of their start."""
    finished: list[Child] = field(default_factory=list)
    """In the order of their end."""
    converged: datetime | None = None
    parents: list["TuningJob"] = field(default_factory=list)
    """Of a warm start."""
    stop_requested: threading.Event = field(default_factory=threading.Event)

    @property
    def name(self) -> str:
        return str(self.request["HyperParameterTuningJobName"])

    @property
    def config(self) -> Mapping[str, Any]:
        """HyperParameterTuningJobConfig."""
        config: Mapping[str, Any] = self.request["HyperParameterTuningJobConfig"]
        return config

    @property
    def definition(self) -> Mapping[str, Any]:
        """TrainingJobDefinition."""
        definition: Mapping[str, Any] = self.request["TrainingJobDefinition"]
        return definition

    @property
    def objective(self) -> Mapping[str, str]:
        """Type and MetricName of what is sought."""
        objective: Mapping[str, str] = self.config["HyperParameterTuningJobObjective"]
        return objective

    @property
    def maximize(self) -> bool:
        return self.objective["Type"] == "Maximize"

    @property
    def objectives(self) -> list[float]:
        """Of the jobs that have one, in the order of their end."""
        return [c.objective for c in self.finished if c.objective is not None]

    @property
    def best(self) -> Child | None:
        """The child with the best objective."""
        return best_child(self.children, maximize=self.maximize)

    def finish(self, status: str, *, failure: str = "") -> None:
        """Reach a final status."""
        self.status, self.failure = status, failure
        self.modified = self.ended = now()


def tuning_job_named(name: str, *, state: State) -> TuningJob:
    """Raises AwsError where there is none."""
    job = state.kept(TuningJob).get(name)
    if job is None:
        raise not_found(
            f"Amazon SageMaker can't find a tuning job with the name {name}. Make sure the "
            "tuning job exists and is in this region."
        )
    return job


def best_child(children: list[Child], *, maximize: bool) -> Child | None:
    """The first of those with the best objective; None where none has one."""
    scored = [(child.objective, child) for child in children if child.objective is not None]
    if not scored:
        return None
    choose = max if maximize else min
    return choose(scored, key=lambda pair: pair[0])[1]


def describe_tuning(job: TuningJob, *, state: State) -> dict[str, Any]:
    """The answer of DescribeHyperParameterTuningJob."""
    with state.lock:
        described = tuning_summary(job)
        described.pop("Strategy")
        described.pop("ResourceLimits")
        described |= {name: job.request[name] for name in _SHOWN if name in job.request}
        described["TrainingJobDefinition"] = _definition_shown(job)
        described["TuningJobCompletionDetails"] = _completion(job)
        described["ConsumedResources"] = {"RuntimeInSeconds": _runtime(job)}
        if job.best is not None:
            described["BestTrainingJob"] = child_summary(job.best, state=state)
        if job.parents:
            described |= _overall_best(job, state=state)
        if job.failure:
            described["FailureReason"] = job.failure
        return described


def _definition_shown(job: TuningJob) -> dict[str, Any]:
    """With what SageMaker's SDK relies on when it attaches to a job."""
    added = {OBJECTIVE_HYPERPARAMETER: job.objective["MetricName"]}
    static = {**job.definition.get("StaticHyperParameters", {}), **added}
    resources = resources_of(job.definition)
    return {**job.definition, "StaticHyperParameters": static, "ResourceConfig": resources}


def tuning_summary(job: TuningJob) -> dict[str, Any]:
    """Its entry in ListHyperParameterTuningJobs."""
    ended = {"HyperParameterTuningEndTime": job.ended} if job.ended else {}
    return {
        "HyperParameterTuningJobName": job.name,
        "HyperParameterTuningJobArn": job.arn,
        "HyperParameterTuningJobStatus": job.status,
        "Strategy": job.config["Strategy"],
        "CreationTime": job.created,
        "LastModifiedTime": job.modified,
        **ended,
        "TrainingJobStatusCounters": _job_counters(job),
        "ObjectiveStatusCounters": _objective_counters(job),
        "ResourceLimits": job.config["ResourceLimits"],
    }


def child_summary(child: Child, *, state: State) -> dict[str, Any]:
    """HyperParameterTrainingJobSummary."""
    full = describe(child.job, state=state)
    names = (
        "TrainingJobName",
        "TrainingJobArn",
        "CreationTime",
        "TrainingStartTime",
        "TrainingEndTime",
        "TrainingJobStatus",
        "FailureReason",
    )
    found = {name: full[name] for name in names if name in full}
    found |= {"TunedHyperParameters": child.tuned, "ObjectiveStatus": child.objective_status}
    if child.objective is not None:
        found["FinalHyperParameterTuningJobObjectiveMetric"] = {
            "MetricName": child.objective_name,
            "Value": child.objective,
        }
    return found


def _overall_best(job: TuningJob, *, state: State) -> dict[str, Any]:
    """Of a warm start: the best of this job and its parents."""
    every = [child for each in (*job.parents, job) for child in each.children]
    best = best_child(every, maximize=job.maximize)
    return {"OverallBestTrainingJob": child_summary(best, state=state)} if best else {}


def _completion(job: TuningJob) -> dict[str, Any]:
    waited = jobs_without_improvement(job.objectives, maximize=job.maximize)
    details: dict[str, Any] = {"NumberOfTrainingJobsObjectiveNotImproving": waited}
    if job.converged:
        details["ConvergenceDetectedTime"] = job.converged
    return details


def _runtime(job: TuningJob) -> int:
    return round(((job.ended or now()) - job.created).total_seconds())


def _job_counters(job: TuningJob) -> dict[str, int]:
    """A failed job is not repeated here, so that none is a retryable error."""
    counts = Counter(child.job.status for child in job.children)
    return {
        "Completed": counts["Completed"],
        "InProgress": counts["InProgress"] + counts["Stopping"],
        "RetryableError": 0,
        "NonRetryableError": counts["Failed"],
        "Stopped": counts["Stopped"],
    }


def _objective_counters(job: TuningJob) -> dict[str, int]:
    counts = Counter(child.objective_status for child in job.children)
    return {status: counts[status] for status in ("Succeeded", "Pending", "Failed")}


# --- job records ---
# What tuning jobs leave in the emulator's records; their training jobs have their own.


@recorded
def tuning_records(state: State) -> Iterable[Record]:
    """A record a job."""
    for job in state.kept(TuningJob).values():
        yield Record(
            kind="hyper-parameter-tuning-job",
            name=job.name,
            arn=job.arn,
            status=job.status,
            created=job.created,
            ended=job.ended,
            failure=job.failure,
            tags=dict(state.tags(job.arn)),
            details={
                "strategy": job.config["Strategy"],
                "training_jobs": [child.job.name for child in job.children],
                "best": job.best.job.name if job.best else "",
            },
        )
