"""Machines that stay for the next job: KeepAlivePeriodInSeconds.

A job reuses the pool of an ended one that had the same machines, role and network; only
the simulated start-up becomes shorter.
"""

from collections.abc import Iterator
from typing import Any

from rehearsal.emulator.state import State, now
from rehearsal.jobs.training_job import TrainingJob

_SAME = ("InstanceType", "InstanceCount", "VolumeSizeInGB", "VolumeKmsKeyId")


def open_pool(job: TrainingJob) -> None:
    """A job has ended: its machines stay for a while, where it asked for that."""
    if job.resources.get("KeepAlivePeriodInSeconds"):
        job.warm_pool = {"Status": "Available", "ResourceRetainedBillableTimeInSeconds": 0}


def reuse_pool(job: TrainingJob, *, state: State) -> None:
    """A job starts: it takes the machines of a pool that fits."""
    if not job.resources.get("KeepAlivePeriodInSeconds"):
        return
    with state.lock:
        pool = next(_fitting(job, state=state), None)
        if pool is not None:
            pool.warm_pool |= {"Status": "Reused", "ReusedByJob": job.name}
            job.reused_pool = True
        job.warm_pool = {"Status": "InUse"}


def refresh_pools(state: State) -> None:
    """End the pools whose time is over, and count what the others cost."""
    with state.lock:
        for job in state.kept(TrainingJob).values():
            if job.warm_pool.get("Status") == "Available" and job.ended is not None:
                kept = job.resources["KeepAlivePeriodInSeconds"]
                passed = min(kept, int((now() - job.ended).total_seconds()))
                job.warm_pool["ResourceRetainedBillableTimeInSeconds"] = passed
                if passed >= kept:
                    job.warm_pool["Status"] = "Terminated"


def _fitting(job: TrainingJob, *, state: State) -> Iterator[TrainingJob]:
    refresh_pools(state)
    for other in state.kept(TrainingJob).values():
        if other.warm_pool.get("Status") == "Available" and _key(other) == _key(job):
            yield other


def _key(job: TrainingJob) -> Any:  # noqa: ANN401
    machines = [job.resources.get(name) for name in _SAME]
    return [*machines, job.request["RoleArn"], job.request.get("VpcConfig")]
