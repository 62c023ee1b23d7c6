"""What training jobs leave in the emulator's records."""

from collections.abc import Iterable, Iterator
from typing import Any

from rehearsal.emulator.records import STARTUP_SECONDS, Record, recorded
from rehearsal.emulator.state import State, now
from rehearsal.jobs.training_job import TrainingJob


@recorded
def training_records(state: State) -> Iterable[Record]:
    """A record a job."""
    for job in state.kept(TrainingJob).values():
        until = job.ended or now()
        yield Record(
            kind="training-job",
            name=job.name,
            arn=job.arn,
            status=job.status,
            created=job.created,
            started=job.training_started,
            ended=job.ended,
            instance_type=job.instances[0][1],
            instance_count=len(job.instances),
            startup_seconds=_startup(job),
            executed_seconds=_seconds(job, until=until),
            spot=job.is_spot,
            failure=job.failure,
            tags=dict(state.tags(job.arn)),
            details={"interruptions": job.interruptions, "tuning_job": job.tuning_job_arn},
        )


def note_gaps(job: TrainingJob, *, state: State) -> None:
    """Say what a job asks for and does not get here."""
    for text in _gaps(job, state=state):
        state.log.not_covered(text)


def _gaps(job: TrainingJob, *, state: State) -> Iterator[str]:
    from rehearsal.jobs.container import is_sandboxed

    modes = [job.request["AlgorithmSpecification"]["TrainingInputMode"]]
    modes += [channel.get("InputMode") for channel in job.request.get("InputDataConfig", ())]
    if "FastFile" in modes:
        yield "FastFile: the data are copied before the start, as with File"
    sandboxed = is_sandboxed(state)
    if not sandboxed:
        yield "sandbox: jobs are plain processes here, they could see the user's files"
    if job.request.get("EnableNetworkIsolation") and not sandboxed:
        yield "network isolation of training jobs"


def _startup(job: TrainingJob) -> float:
    kind = "warm-training-job" if job.reused_pool else "training-job"
    return STARTUP_SECONDS[kind] * (1 + job.interruptions)


def _seconds(job: TrainingJob, *, until: Any) -> float:  # noqa: ANN401
    return (until - job.training_started).total_seconds() if job.training_started else 0
