"""Classify: every image of a source, in this process or in a batch transform job."""

from typing import Annotated

from zenml import get_step_context, step

from darkroom.backends.placement import classify, classify_remotely
from darkroom.base.progress import terminal_progress
from darkroom.batch.selection import BatchJobSpec
from darkroom.batch.table import BatchTable
from darkroom.config.sagemaker import Placement
from darkroom.tracking.runs import active_run
from materializers.batch_table import BatchTableMaterializer


@step(
    enable_cache=False,
    experiment_tracker=True,
    output_materializers=BatchTableMaterializer,
)
def classify_source(
    order: BatchJobSpec, placement: Placement
) -> Annotated[BatchTable, "batch_table"]:
    """Classify a source's images; an interrupted call goes on where it was.

    Args:
        order: source, split and model.
        placement: in this process, or as a batch transform job.
    """
    active_run().log(parameters={"split": order.split}, tags={"data": order.public_source})
    if placement.jobs is None:
        return classify(order, progress=terminal_progress())
    return classify_remotely(
        order,
        jobs=placement.jobs,
        run=get_step_context().pipeline_run.name,
        fresh=placement.fresh,
        progress=terminal_progress(),
    )
