"""Validate: find what is wrong with a data set before it costs a training."""

from typing import Annotated

from zenml import log_metadata, step
from zenml.types import HTMLString

from darkroom.base.progress import terminal_progress
from darkroom.config import DataConfig
from darkroom.config.sagemaker import Placement
from darkroom.data.dataset import Dataset
from darkroom.reports.validation_page import report_html
from darkroom.validation import ValidationReport, clean, raise_if_unusable, validate
from materializers.dataset import DatasetMaterializer
from steps.cache_policy import depends_on
from steps.chosen_backend import chosen_backend


@step(
    cache_policy=depends_on("darkroom.validation", files=("darkroom/templates",)),
    output_materializers={"dataset": DatasetMaterializer},
)
def validate_dataset(
    dataset: Dataset, data: DataConfig, placement: Placement
) -> tuple[
    Annotated[Dataset, "dataset"],
    Annotated[ValidationReport, "validation_findings"],
    Annotated[HTMLString, "validation_report"],
]:
    """Report what is wrong, leave out what the configuration says, stop where it must.

    Args:
        dataset: as ingested.
        data: what to do about each kind of problem.
        placement: where jobs have to be able to read what is left.
    """
    progress = terminal_progress()
    report = validate(dataset, config=data, progress=progress)
    raise_if_unusable(report)
    log_metadata({"findings": {f.kind: f.count for f in report.findings}})
    cleaned = chosen_backend(placement).publish(clean(dataset, report), progress=progress)
    return cleaned, report, HTMLString(report_html(report, dataset))
