"""A transform job, as kept and as DescribeTransformJob shows it."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rehearsal.emulator.errors import invalid
from rehearsal.emulator.state import State, now

_SHOWN = (
    "ModelName",
    "MaxConcurrentTransforms",
    "ModelClientConfig",
    "MaxPayloadInMB",
    "BatchStrategy",
    "Environment",
    "TransformInput",
    "TransformOutput",
    "TransformResources",
    "DataProcessing",
    "ExperimentConfig",
)


@dataclass
class TransformJob:
    """One transform job, changed by its own thread."""

    request: Mapping[str, Any]
    arn: str
    created: datetime = field(default_factory=now)
    started: datetime | None = None
    ended: datetime | None = None
    status: str = "InProgress"
    failure: str = ""
    stop_requested: threading.Event = field(default_factory=threading.Event)

    @property
    def name(self) -> str:
        return str(self.request["TransformJobName"])

    @property
    def source(self) -> Mapping[str, Any]:
        """TransformInput."""
        source: Mapping[str, Any] = self.request["TransformInput"]
        return source

    @property
    def target(self) -> Mapping[str, Any]:
        """TransformOutput."""
        target: Mapping[str, Any] = self.request["TransformOutput"]
        return target

    def finish(self, status: str, *, failure: str = "") -> None:
        """Reach a final status."""
        self.status, self.failure, self.ended = status, failure, now()

    def summary(self) -> dict[str, Any]:
        """Its entry in ListTransformJobs."""
        return {
            "TransformJobName": self.name,
            "TransformJobArn": self.arn,
            "TransformJobStatus": self.status,
            "CreationTime": self.created,
            "LastModifiedTime": self.ended or self.started or self.created,
            **self._later(),
        }

    def description(self) -> dict[str, Any]:
        """The answer of DescribeTransformJob."""
        described = self.summary()
        described.pop("LastModifiedTime")
        if self.started:
            described["TransformStartTime"] = self.started
        return described | {key: self.request[key] for key in _SHOWN if key in self.request}

    def _later(self) -> dict[str, Any]:
        """What is known once it has ended."""
        ended = {"TransformEndTime": self.ended} if self.ended else {}
        return ended | ({"FailureReason": self.failure} if self.failure else {})


def transform_job_named(name: str, *, state: State) -> TransformJob:
    """Raises AwsError where there is none."""
    job = state.kept(TransformJob).get(name)
    if job is None:
        raise invalid(f"Could not find requested job with name: {name}")
    return job
