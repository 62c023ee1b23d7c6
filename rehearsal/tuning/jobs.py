"""A tuning job as it is kept, and as DescribeHyperParameterTuningJob shows it."""

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rehearsal.emulator.errors import not_found
from rehearsal.emulator.state import State, now
from rehearsal.jobs.training_job import ENDED, TrainingJob, describe
from rehearsal.tuning.child_requests import OBJECTIVE_HYPERPARAMETER, resources_of
from rehearsal.tuning.criteria import jobs_without_improvement
from rehearsal.tuning.space import Values

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
