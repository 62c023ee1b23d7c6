"""The API of transform jobs."""

from rehearsal.emulator.errors import in_use, not_executed
from rehearsal.emulator.listing import page
from rehearsal.emulator.operations import Answer, Request, operation
from rehearsal.emulator.state import State
from rehearsal.emulator.tags import keep_tags
from rehearsal.hosting.models import model_named
from rehearsal.transform.jobs import TransformJob, transform_job_named
from rehearsal.transform.running import start_transform


@operation("CreateTransformJob")
def create_transform_job(request: Request, *, state: State) -> Answer:
    """Start a transform job."""
    model = model_named(request["ModelName"], state=state)
    if len(model.containers) > 1:
        raise not_executed("A transform with several containers", why="one is started")
    _refuse_unsupported(request)
    name = request["TransformJobName"]
    job = TransformJob(request, arn=state.arn("transform-job", name))
    with state.lock:
        if name in state.kept(TransformJob):
            raise in_use(
                "Transform job names must be unique within an AWS account and region. A "
                f"transform job with this name already exists ({job.arn})."
            )
        state.kept(TransformJob)[name] = job
    keep_tags(job.arn, request.get("Tags", []), state=state)
    start_transform(job, state=state)
    return {"TransformJobArn": job.arn}


@operation("DescribeTransformJob")
def describe_transform_job(request: Request, *, state: State) -> Answer:
    """Show a transform job."""
    with state.lock:
        return transform_job_named(request["TransformJobName"], state=state).description()


@operation("ListTransformJobs")
def list_transform_jobs(request: Request, *, state: State) -> Answer:
    """Show all transform jobs."""
    with state.lock:
        rows = [job.summary() for job in state.kept(TransformJob).values()]
    return page(rows, request=request, key="TransformJobSummaries", kind="TransformJob")


@operation("StopTransformJob")
def stop_transform_job(request: Request, *, state: State) -> Answer:
    """Stop a transform job; objects that are done keep their results."""
    with state.lock:
        job = transform_job_named(request["TransformJobName"], state=state)
        if job.status == "InProgress":
            job.status = "Stopping"
            job.stop_requested.set()
    return {}


def _refuse_unsupported(request: Request) -> None:
    split = request["TransformInput"].get("SplitType", "None")
    if split not in ("None", "Line"):
        raise not_executed(f"SplitType {split}", why="only None and Line are cut here")
    if request["TransformInput"]["DataSource"]["S3DataSource"]["S3DataType"] not in (
        "S3Prefix",
        "ManifestFile",
    ):
        raise not_executed("This S3DataType", why="only S3Prefix and ManifestFile are read")
