"""What tuning jobs leave in the emulator's records; their training jobs have their own."""

from collections.abc import Iterable

from rehearsal.emulator.records import Record, recorded
from rehearsal.emulator.state import State
from rehearsal.tuning.jobs import TuningJob


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
