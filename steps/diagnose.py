"""Diagnose: what went wrong in the training, why, and what to do."""

from typing import Annotated

from zenml import log_metadata, step
from zenml.types import HTMLString

from darkroom.capture.recording import Recording
from darkroom.config.debugging import DiagnosisConfig
from darkroom.config.placement import Placement
from darkroom.dataset import Dataset
from darkroom.diagnosis.result import Diagnosis
from darkroom.progress import terminal_progress
from darkroom.tracking.runs import active_run
from steps.cache_policy import depends_on


@step(
    experiment_tracker=True,
    cache_policy=depends_on(
        "darkroom.diagnosis.reporting", "darkroom.tracking.runs", files=("darkroom/templates",)
    ),
)
def diagnose_training(
    recording: Recording, dataset: Dataset, diagnosis: DiagnosisConfig, placement: Placement
) -> tuple[Annotated[Diagnosis, "diagnosis"], Annotated[HTMLString, "training_report"]]:
    """Judge what was recorded, and write the training report.

    Args:
        recording: of the final training.
        dataset: what it was trained on.
        diagnosis: which rules, with what parameters.
        placement: the instance type, for what the training cost.
    """
    from darkroom.backends.training_prices import training_prices
    from darkroom.diagnosis.diagnosing import summary_lines
    from darkroom.diagnosis.reporting import diagnose_and_report

    run = active_run()
    told = diagnose_and_report(
        recording.folder,
        config=diagnosis,
        dataset=dataset,
        prices=training_prices(placement.jobs),
        run_name=run.name,
    )
    run.text(told.report, file="reports/training.html")
    run.text(told.diagnosis.model_dump_json(indent=1), file="reports/diagnosis.json")
    for line in summary_lines(told.diagnosis):
        terminal_progress().message(f"diagnosis: {line}")
    log_metadata({"findings": [finding.headline for finding in told.diagnosis.headline]})
    return told.diagnosis, HTMLString(told.report)
