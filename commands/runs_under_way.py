"""Pipeline runs that another machine or process executes: found, and closed where it has died.

ZenML hears of the end of a run from the job or process that executes it. One that is killed says
nothing, and its run would be taken for one that is under way for ever.
"""

from datetime import UTC
from pathlib import Path

from zenml.client import Client
from zenml.constants import METADATA_ORCHESTRATOR_RUN_ID
from zenml.enums import ExecutionStatus
from zenml.models import PipelineRunResponse
from zenml.orchestrators.publish_utils import (
    publish_failed_step_run,
    publish_pipeline_run_status_update,
)

from darkroom.backends.sagemaker.aws_errors import aws_errors_explained
from darkroom.backends.sagemaker.clients import Clients
from darkroom.backends.sagemaker.orchestration import OrchestrationJob
from darkroom.backends.sagemaker.tagged import tagged
from darkroom.config import DataConfig
from darkroom.files import workspace, write_text
from darkroom.progress import terminal_progress
from darkroom.sources.source_names import public_url
from darkroom.summary import FAILURE_FILE, FailedRun
from darkroom.tracking.runs import fail_unfinished
from stacks.loader import tracking_uri


def find_under_way(tag: str, *, experiment: str, clients: Clients) -> PipelineRunResponse | None:
    """The newest run with the tag whose job runs; those whose job has died are closed.

    A run without a job is left alone: it may be about to be started by somebody else.

    Args:
        experiment: in MLflow, which holds the records of the runs.
    """
    runs = Client().list_pipeline_runs(tags=[tag], in_progress=True, sort_by="desc:created")
    for run in runs.items:
        job = job_of(run, clients=clients)
        if job and job.is_running():
            return run
        if job:
            close(run, experiment=experiment)
    return None


def job_of(run: PipelineRunResponse, *, clients: Clients) -> OrchestrationJob | None:
    """The job that executes a run, where it was ever started.

    ZenML keeps its ARN, unless whoever started it died before it could say so.
    """
    arn = str(run.run_metadata.get(METADATA_ORCHESTRATOR_RUN_ID) or run.orchestrator_run_id or "")
    name = arn.rpartition("/")[2] or _running_job(run.name, clients=clients)
    return OrchestrationJob(name, clients) if name else None


def close(run: PipelineRunResponse, *, experiment: str) -> None:
    """Tell ZenML and MLflow that a run whose job has ended is over; fine if they know."""
    if not Client().get_pipeline_run(run.id).status.is_finished:
        _fail(run, reason="The job that executed it has ended.")
        fail_unfinished(run.name, experiment=experiment, tracking_uri=tracking_uri())


def close_killed(name: str, *, pid: int) -> None:
    """Tell ZenML, MLflow and the user that a run of this machine, which was killed, is over."""
    reason = f"its process ({pid}) was killed, or went down with the machine"
    folder = workspace() / "runs" / name
    had_ended = (folder / "summary.json").exists()  # and was killed while it told of it
    for run in Client().list_pipeline_runs(name=name, size=1, hydrate=True).items:
        if not had_ended:
            _leave_failure(run, folder=folder, reason=reason)
        if not run.status.is_finished:
            _fail(run, reason=reason)
    fail_unfinished(
        name, experiment=None, tracking_uri=tracking_uri(), error="" if had_ended else reason
    )
    terminal_progress().message(
        f"Run {name} did not come to its end: {reason}. ZenML and MLflow are told that it has "
        "failed; what it had finished is reused where it fits"
    )


def _running_job(run: str, *, clients: Clients) -> str:
    with aws_errors_explained(f"the job of run {run!r}"):
        jobs = tagged("training job", clients=clients)
    ours = (job for job in jobs if job.tag("kind") == "orchestration" and job.tag("run") == run)
    return next((job.name for job in ours), "")


def _leave_failure(run: PipelineRunResponse, *, folder: Path, reason: str) -> None:
    """Have a training listed as failed, and removed as one; a batch has no folder."""
    config = (run.config.parameters or {}).get("config")
    if config is None:
        return
    source = config.get("data", {}).get("source", DataConfig().source)
    unfinished = [name for name, step in run.steps.items() if not step.status.is_finished]
    failed = FailedRun(
        name=run.name,
        started=(run.start_time or run.created).replace(tzinfo=UTC),
        stack="local",
        data=public_url(source),
        component=unfinished[0] if unfinished else "",
        kind="interrupted",
        reason=reason,
    )
    write_text(folder / FAILURE_FILE, failed.model_dump_json(indent=1))


def _fail(run: PipelineRunResponse, *, reason: str) -> None:
    for step in Client().get_pipeline_run(run.id).steps.values():
        if not step.status.is_finished:
            publish_failed_step_run(step.id)
    publish_pipeline_run_status_update(run.id, ExecutionStatus.FAILED, status_reason=reason)
