"""Batch: predictions for a whole split, without an endpoint."""

from typing import Annotated

from zenml import log_metadata, step
from zenml.types import CSVString

from darkroom.base.progress import terminal_progress
from darkroom.config import BatchConfig
from darkroom.config.sagemaker import Placement
from darkroom.data.dataset import Dataset
from darkroom.models.bundle import Bundle
from darkroom.tracking.runs import active_run
from steps.chosen_backend import chosen_backend


@step(enable_cache=False, experiment_tracker=True)
def predict_split(
    bundle: Bundle, dataset: Dataset, batch: BatchConfig, placement: Placement
) -> Annotated[CSVString, "batch_predictions"]:
    """Classify every image of a split, and join what comes back to file names and labels.

    Args:
        bundle: the packed model.
        dataset: whose images are classified.
        batch: which of them.
        placement: in this process, or as a batch transform job.
    """
    from darkroom.backends.predictions import as_csv, engines_of, share_correct

    assert batch.split != "none"  # noqa: S101 - the pipeline does not call it then
    records = dataset.split(batch.split)
    predictions = chosen_backend(placement).predict_batch(
        bundle, images=[dataset.file(record) for record in records], progress=terminal_progress()
    )
    named = [
        p.model_copy(update={"source": r.path}) for p, r in zip(predictions, records, strict=True)
    ]
    labels = [record.label for record in records]
    table = as_csv(named, labels=labels)
    active_run().text(table, file=f"predictions/{batch.split}.csv")
    log_metadata(
        {
            "images": len(named),
            "unreadable": sum(prediction.error is not None for prediction in named),
            "correct": share_correct(named, labels=labels),
            "engine": engines_of(predictions) or "not said",
        }
    )
    return CSVString(table)
