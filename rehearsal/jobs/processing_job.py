"""A processing job as it is remembered, and as the records show it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from threading import Event
from typing import Any

from rehearsal.emulator.records import STARTUP_SECONDS, Record, recorded
from rehearsal.emulator.state import State, now

ENDED = ("Completed", "Failed", "Stopped")


@dataclass
class ProcessingJob:
    """One processing job, changed by its own thread."""

    request: Mapping[str, Any]
    arn: str
    folder: Path
    created: datetime = field(default_factory=now)
    status: str = "InProgress"
    started: datetime | None = None
    ended: datetime | None = None
    failure: str = ""
    exit_message: str = ""
    stop_requested: Event = field(default_factory=Event)
    done: Event = field(default_factory=Event)

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.request["ProcessingJobName"])

    @property
    def cluster(self) -> Mapping[str, Any]:
        """Its machines."""
        found: Mapping[str, Any] = self.request["ProcessingResources"]["ClusterConfig"]
        return found

    @property
    def hosts(self) -> list[str]:
        """Names of its machines."""
        return [f"algo-{number}" for number in range(1, self.cluster.get("InstanceCount", 1) + 1)]


@recorded
def processing_records(state: State) -> Iterable[Record]:
    """A record a job."""
    for job in state.kept(ProcessingJob).values():
        until = job.ended or now()
        yield Record(
            kind="processing-job",
            name=job.name,
            arn=job.arn,
            status=job.status,
            created=job.created,
            started=job.started,
            ended=job.ended,
            instance_type=job.cluster.get("InstanceType", ""),
            instance_count=len(job.hosts),
            startup_seconds=STARTUP_SECONDS["processing-job"],
            executed_seconds=(until - job.started).total_seconds() if job.started else 0,
            failure=job.failure,
            tags=dict(state.tags(job.arn)),
        )
