"""Batch: a whole source through a model, and what came of it."""

from zenml import pipeline

from darkroom.batch.order import BatchOrder
from steps.classify import classify_source
from steps.score import score_batch


@pipeline(dynamic=True, name="batch", enable_cache=False)
def batch_pipeline(order: BatchOrder) -> None:
    """Classify, score.

    Args:
        order: source, split and model.
    """
    score_batch(classify_source(order))
