"""The report on a training: of one that is diagnosed, and of one that failed."""

from pathlib import Path
from typing import TYPE_CHECKING

from darkroom.base.files import write_text
from darkroom.config.debugging import DiagnosisConfig
from darkroom.config.sagemaker import Placement
from darkroom.data.dataset import Dataset
from darkroom.tracking.runs import active_run

if TYPE_CHECKING:
    from darkroom.reports.training_page import Report


def report_on(
    recording: Path,
    *,
    dataset: Dataset,
    config: DiagnosisConfig,
    placement: Placement,
    failure: str = "",
) -> "Report":
    """Judge a recording, and put report and diagnosis into MLflow.

    Args:
        failure: the error that the training ended with; empty: it did not fail.
    """
    from darkroom.backends.sagemaker.costs.prices import training_prices
    from darkroom.reports.training_page import diagnose_and_report

    run = active_run()
    told = diagnose_and_report(
        recording,
        config=config,
        dataset=dataset,
        prices=training_prices(placement.jobs),
        run_name=run.name,
        failure=failure,
    )
    run.text(told.report, file="reports/training.html")
    run.text(told.diagnosis.model_dump_json(indent=1), file="reports/diagnosis.json")
    return told


def leave_report(told: "Report", *, path: Path, placement: Placement) -> str:
    """Write the report of a run that fails, and say where it is read.

    Where jobs are managed, this process may run on a machine that nobody can look into: there
    MLflow has it.
    """
    if placement.jobs is not None:
        return "The report: reports/training.html of the run in MLflow"
    write_text(path, told.report)
    return f"The report: {path}"
