"""Classify: every image of a source, in this process."""

from typing import Annotated

from zenml import step

from darkroom.backends.batch_source import classify
from darkroom.batch.order import BatchOrder
from darkroom.batch.rows import BatchTable
from darkroom.progress import terminal_progress


@step(enable_cache=False)
def classify_source(order: BatchOrder) -> Annotated[BatchTable, "batch_table"]:
    """Classify a source's images; an interrupted call goes on where it was.

    Args:
        order: source, split and model.
    """
    return classify(order, progress=terminal_progress())
