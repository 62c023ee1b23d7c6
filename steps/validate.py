"""Validate: find what is wrong with a data set before it costs a training."""

from typing import Annotated

from zenml import log_metadata, step
from zenml.types import HTMLString

from darkroom.config import DataConfig
from darkroom.dataset import Dataset
from darkroom.progress import terminal_progress
from darkroom.validation import ValidationReport, clean, raise_if_unusable, report_html, validate
from materializers.dataset import DatasetMaterializer
from steps.cache_policy import depends_on


@step(
    cache_policy=depends_on("darkroom.validation", files=("darkroom/templates",)),
    output_materializers={"dataset": DatasetMaterializer},
)
def validate_dataset(
    dataset: Dataset, data: DataConfig
) -> tuple[
    Annotated[Dataset, "dataset"],
    Annotated[ValidationReport, "validation_findings"],
    Annotated[HTMLString, "validation_report"],
]:
    """Report what is wrong, leave out what the configuration says, stop where it must.

    Args:
        dataset: as ingested.
        data: what to do about each kind of problem.
    """
    report = validate(dataset, config=data, progress=terminal_progress())
    raise_if_unusable(report)
    log_metadata({"findings": {f.kind: f.count for f in report.findings}})
    return clean(dataset, report), report, HTMLString(report_html(report, dataset))
