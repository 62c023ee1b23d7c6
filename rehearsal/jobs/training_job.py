"""A training job as it is remembered, and as DescribeTrainingJob shows it."""

import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from rehearsal.emulator.state import State, now

# --- metrics ---
# Metrics read out of a job's log, by the regular expressions of its MetricDefinitions.


@dataclass(frozen=True)
class MetricPoint:
    """One value of a metric."""

    name: str
    value: float
    time: datetime


class MetricReader:
    """Finds metrics in lines of a log."""

    def __init__(self, definitions: Sequence[Mapping[str, str]]) -> None:
        self._patterns = [(d["Name"], re.compile(d["Regex"])) for d in definitions]

    def read(self, line: str) -> list[MetricPoint]:
        """All values in a line, in the order of the definitions.

        The first group of the expression is the value; what is no number is no metric.
        """
        found = []
        for name, pattern in self._patterns:
            for match in pattern.finditer(line):
                value = _number(match)
                if value is not None:
                    found.append(MetricPoint(name, value, now()))
        return found


def last_values(points: Sequence[MetricPoint]) -> list[dict[str, Any]]:
    """FinalMetricDataList: the last value of each metric."""
    last = {point.name: point for point in points}
    return [
        {"MetricName": point.name, "Value": point.value, "Timestamp": point.time}
        for point in last.values()
    ]


def _number(match: "re.Match[str]") -> float | None:
    text = match.group(1) if match.re.groups else match.group(0)
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


# --- training job ---

ENDED = ("Completed", "Failed", "Stopped")
_SHOWN = (
    "AlgorithmSpecification",
    "RoleArn",
    "InputDataConfig",
    "OutputDataConfig",
    "ResourceConfig",
    "VpcConfig",
    "StoppingCondition",
    "CheckpointConfig",
    "DebugHookConfig",
    "TensorBoardOutputConfig",
    "ExperimentConfig",
    "ProfilerConfig",
    "Environment",
    "RetryStrategy",
    "InfraCheckConfig",
)


@dataclass
class TrainingJob:
    """One training job, changed by its own thread."""

    request: Mapping[str, Any]
    arn: str
    folder: Path
    """jobs/<name>: algo-1/ and so on, algo-1.log."""
    tuning_job_arn: str = ""
    created: datetime = field(default_factory=now)
    status: str = "InProgress"
    transitions: list[dict[str, Any]] = field(default_factory=list)
    training_started: datetime | None = None
    ended: datetime | None = None
    failure: str = ""
    artifacts: str = ""
    """URI of the model, once it is there."""
    billed_seconds: float = 0
    metrics: list[MetricPoint] = field(default_factory=list)
    """All that were seen in the log, as they come."""
    metrics_sent: int = 0
    """How many of them are in CloudWatch."""
    stop_requested: threading.Event = field(default_factory=threading.Event)
    interruptions: int = 0
    warm_pool: dict[str, Any] = field(default_factory=dict)
    reused_pool: bool = False
    exit_codes: dict[str, int] = field(default_factory=dict)
    """By host, of the last attempt."""
    done: threading.Event = field(default_factory=threading.Event)
    """Set when the status is final."""

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.request["TrainingJobName"])

    @property
    def secondary(self) -> str:
        """Its secondary status."""
        return str(self.transitions[-1]["Status"]) if self.transitions else "Starting"

    @property
    def is_spot(self) -> bool:
        """Whether it may be interrupted."""
        return bool(self.request.get("EnableManagedSpotTraining"))

    @property
    def resources(self) -> Mapping[str, Any]:
        """Its machines."""
        config: Mapping[str, Any] = self.request["ResourceConfig"]
        return config

    @property
    def instances(self) -> list[tuple[str, str]]:
        """Host name and instance type of each machine."""
        groups = self.resources.get("InstanceGroups") or [self.resources]
        types = [g["InstanceType"] for g in groups for _ in range(g.get("InstanceCount", 1))]
        return [(f"algo-{number}", kind) for number, kind in enumerate(types, 1)]

    def enter(self, status: str, *, message: str) -> None:
        """Go on to a secondary status."""
        moment = now()
        if self.transitions:
            self.transitions[-1].setdefault("EndTime", moment)
        self.transitions.append({"Status": status, "StartTime": moment, "StatusMessage": message})

    def finish(self, status: str, *, secondary: str = "", message: str, failure: str = "") -> None:
        """Reach a final status."""
        self.enter(secondary or status, message=message)
        self.ended = now()
        self.transitions[-1]["EndTime"] = self.ended
        self.failure = failure[:1024]
        self.status = status
        self.done.set()


def describe(job: TrainingJob, *, state: State) -> dict[str, Any]:
    """The answer of DescribeTrainingJob."""
    with state.lock:
        return {
            "TrainingJobName": job.name,
            "TrainingJobArn": job.arn,
            "TrainingJobStatus": job.status,
            "SecondaryStatus": job.secondary,
            "SecondaryStatusTransitions": [dict(t) for t in job.transitions],
            "CreationTime": job.created,
            "LastModifiedTime": _modified(job),
            "HyperParameters": dict(job.request.get("HyperParameters", {})),
            "EnableNetworkIsolation": bool(job.request.get("EnableNetworkIsolation")),
            "EnableManagedSpotTraining": job.is_spot,
            "EnableInterContainerTrafficEncryption": bool(
                job.request.get("EnableInterContainerTrafficEncryption")
            ),
            "ProfilingStatus": _profiling(job),
            **{name: job.request[name] for name in _SHOWN if name in job.request},
            # AWS shows it empty where it was not given, and its SDK relies on that.
            "OutputDataConfig": {"KmsKeyId": "", **job.request["OutputDataConfig"]},
            **_later(job),
        }


def summary(job: TrainingJob) -> dict[str, Any]:
    """A row of ListTrainingJobs."""
    found = {
        "TrainingJobName": job.name,
        "TrainingJobArn": job.arn,
        "CreationTime": job.created,
        "LastModifiedTime": _modified(job),
        "TrainingJobStatus": job.status,
        "SecondaryStatus": job.secondary,
    }
    if job.ended:
        found["TrainingEndTime"] = job.ended
    if job.warm_pool:
        found["WarmPoolStatus"] = dict(job.warm_pool)
    return found


def _later(job: TrainingJob) -> dict[str, Any]:
    """What is known only after a while."""
    found: dict[str, Any] = {
        # AWS shows where the model will be as soon as the job is created.
        "ModelArtifacts": {"S3ModelArtifacts": job.artifacts or expected_artifacts(job)},
    }
    if job.training_started:
        found["TrainingStartTime"] = job.training_started
    if job.ended:
        found["TrainingEndTime"] = job.ended
        found["TrainingTimeInSeconds"] = _training_seconds(job)
        found["BillableTimeInSeconds"] = max(1, round(job.billed_seconds))
    if job.failure:
        found["FailureReason"] = job.failure
    if job.metrics:
        found["FinalMetricDataList"] = last_values(job.metrics)
    if job.tuning_job_arn:
        found["TuningJobArn"] = job.tuning_job_arn
    if job.warm_pool:
        found["WarmPoolStatus"] = dict(job.warm_pool)
    return found


def expected_artifacts(job: TrainingJob) -> str:
    """Where the model is, or will be."""
    output = job.request["OutputDataConfig"]
    packed = output.get("CompressionType", "GZIP") == "GZIP"
    base = f"{output['S3OutputPath'].rstrip('/')}/{job.name}/output"
    return f"{base}/model.tar.gz" if packed else f"{base}/model/"


def _training_seconds(job: TrainingJob) -> int:
    if job.training_started is None or job.ended is None:
        return 0
    return max(1, round((job.ended - job.training_started).total_seconds()))


def _modified(job: TrainingJob) -> datetime:
    return job.transitions[-1]["StartTime"] if job.transitions else job.created


def _profiling(job: TrainingJob) -> str:
    disabled = job.request.get("ProfilerConfig", {"DisableProfiler": True})
    return "Disabled" if disabled.get("DisableProfiler") else "Enabled"
