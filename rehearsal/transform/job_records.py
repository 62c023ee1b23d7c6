"""What transform jobs leave in the emulator's records."""

from collections.abc import Iterable

from rehearsal.emulator.records import STARTUP_SECONDS, Record, recorded
from rehearsal.emulator.state import State, now
from rehearsal.transform.jobs import TransformJob


@recorded
def transform_records(state: State) -> Iterable[Record]:
    """A record a job."""
    for job in state.kept(TransformJob).values():
        resources = job.request["TransformResources"]
        until = job.ended or now()
        seconds = (until - job.started).total_seconds() if job.started else 0
        yield Record(
            kind="transform-job",
            name=job.name,
            arn=job.arn,
            status=job.status,
            created=job.created,
            started=job.started,
            ended=job.ended,
            instance_type=resources["InstanceType"],
            instance_count=resources["InstanceCount"],
            startup_seconds=STARTUP_SECONDS["transform-job"],
            executed_seconds=seconds,
            failure=job.failure,
            tags=dict(state.tags(job.arn)),
        )
