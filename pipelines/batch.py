"""Batch: a whole source through a model, and what came of it."""

from zenml import pipeline

from darkroom.batch.selection import BatchJobSpec
from darkroom.config.sagemaker import Placement
from steps.classify import classify_source
from steps.score import score_batch


@pipeline(dynamic=True, name="batch", enable_cache=False)
def batch_pipeline(order: BatchJobSpec, placement: Placement) -> None:
    """Classify, score.

    Args:
        order: source, split and model.
        placement: where the images are classified.
    """
    score_batch(classify_source(order, placement))
