"""Pipeline runs that another machine executes: found again, and closed where it has died.

ZenML hears of the end of a run from the job that executes it. A job that is killed says
nothing, and its run would be taken for one that is under way for ever.
"""

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


def find_under_way(tag: str, *, clients: Clients) -> PipelineRunResponse | None:
    """The newest run with the tag whose job runs; those whose job has died are closed.

    A run without a job is left alone: it may be about to be started by somebody else.
    """
    runs = Client().list_pipeline_runs(tags=[tag], in_progress=True, sort_by="desc:created")
    for run in runs.items:
        job = job_of(run, clients=clients)
        if job and job.is_running():
            return run
        if job:
            close(run)
    return None


def job_of(run: PipelineRunResponse, *, clients: Clients) -> OrchestrationJob | None:
    """The job that executes a run, where it was ever started.

    ZenML keeps its ARN, unless whoever started it died before it could say so.
    """
    arn = str(run.run_metadata.get(METADATA_ORCHESTRATOR_RUN_ID) or run.orchestrator_run_id or "")
    name = arn.rpartition("/")[2] or _running_job(run.name, clients=clients)
    return OrchestrationJob(name, clients) if name else None


def close(run: PipelineRunResponse) -> PipelineRunResponse:
    """Tell ZenML that a run whose job has ended is over; fine if it knows."""
    run = Client().get_pipeline_run(run.id)
    if run.status.is_finished:
        return run
    for step in run.steps.values():
        if not step.status.is_finished:
            publish_failed_step_run(step.id)
    return publish_pipeline_run_status_update(
        run.id, ExecutionStatus.FAILED, status_reason="The job that executed it has ended."
    )


def _running_job(run: str, *, clients: Clients) -> str:
    with aws_errors_explained(f"the job of run {run!r}"):
        jobs = tagged("training job", clients=clients)
    ours = (job for job in jobs if job.tag("kind") == "orchestration" and job.tag("run") == run)
    return next((job.name for job in ours), "")
