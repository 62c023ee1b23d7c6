"""Score: a batch's classes compared with its labels."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

from zenml import log_metadata, step

from darkroom.batch.scoring import BatchScore, score
from darkroom.batch.table import BatchTable
from darkroom.tracking.runs import active_run


@step(enable_cache=False, experiment_tracker=True)
def score_batch(table: BatchTable) -> Annotated[BatchScore, "batch_score"]:
    """Count, and compute metrics where labels are known; keep the table with the run.

    Args:
        table: rows of all images.
    """
    from darkroom.batch.table import write_table

    found, run = score(table), active_run()
    counts = {name: float(value) for name, value in found.model_dump(exclude={"metrics"}).items()}
    run.log(
        metrics={**counts, **found.metrics},
        parameters={
            "model_version": table.about.model_version,
            "engine": table.about.engine or "not said",
        },
    )
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / "batch.csv"
        write_table(table, path)
        run.file(path, folder="predictions")
    log_metadata({**counts, **found.metrics})
    return found
