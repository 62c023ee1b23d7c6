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
from darkroom.tracking.runs import fail_unfinished


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
    run = Client().get_pipeline_run(run.id)
    if run.status.is_finished:
        return
    for step in run.steps.values():
        if not step.status.is_finished:
            publish_failed_step_run(step.id)
    publish_pipeline_run_status_update(
        run.id, ExecutionStatus.FAILED, status_reason="The job that executed it has ended."
    )
    tracker = Client().active_stack.experiment_tracker
    tracker.configure_mlflow()  # a server on the network wants to know who asks
    fail_unfinished(run.name, experiment=experiment, tracking_uri=tracker.get_tracking_uri())


def _running_job(run: str, *, clients: Clients) -> str:
    with aws_errors_explained(f"the job of run {run!r}"):
        jobs = tagged("training job", clients=clients)
    ours = (job for job in jobs if job.tag("kind") == "orchestration" and job.tag("run") == run)
    return next((job.name for job in ours), "")
