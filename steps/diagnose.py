"""Diagnose: what went wrong in the training, why, and what to do."""

from typing import Annotated

from zenml import log_metadata, step
from zenml.types import HTMLString

from darkroom.base.errors import DarkroomError
from darkroom.base.files import workspace
from darkroom.base.progress import terminal_progress
from darkroom.config.debugging import DiagnosisConfig
from darkroom.config.sagemaker import Placement
from darkroom.data.dataset import Dataset
from darkroom.telemetry.findings import Diagnosis
from darkroom.telemetry.recording import Recording
from darkroom.tracking.runs import active_run
from steps.cache_policy import depends_on
from steps.training_report import leave_report, report_on


@step(
    experiment_tracker=True,
    cache_policy=depends_on(
        "darkroom.reports.training_page",
        "darkroom.tracking.runs",
        files=("darkroom/templates", "steps/training_report.py"),
    ),
)
def diagnose_training(
    recording: Recording,
    dataset: Dataset,
    diagnosis: DiagnosisConfig,
    placement: Placement,
    rules_version: str,
) -> tuple[Annotated[Diagnosis, "diagnosis"], Annotated[HTMLString, "training_report"]]:
    """Judge what was recorded, and write the training report.

    A finding whose action is `fail` ends the run here, before anything is registered.

    Args:
        recording: of the final training.
        dataset: what it was trained on.
        diagnosis: which rules, with what parameters.
        placement: the instance type, for what the training cost.
        rules_version: of the user's rules' content, a part of the cache key.
    """
    from darkroom.debugging.diagnosis import summary_lines

    if recording.folder is None:
        raise DarkroomError("nothing was recorded of the training, so nothing can be judged")
    told = report_on(recording.folder, dataset=dataset, config=diagnosis, placement=placement)
    failing = [finding.in_words for finding in told.diagnosis.findings if finding.action == "fail"]
    for line in summary_lines(told.diagnosis):
        if line not in failing:  # those are told by the error
            terminal_progress().message(f"diagnosis: {line}")
    log_metadata({"findings": [finding.headline for finding in told.diagnosis.headline]})
    if failing:
        path = workspace() / "runs" / active_run().name / "training.html"
        where = leave_report(told, path=path, placement=placement)
        headline = f"the run was failed by {_rules(len(failing))}:"
        raise DarkroomError("\n  ".join([headline, *failing, where]))
    return told.diagnosis, HTMLString(told.report)


def _rules(count: int) -> str:
    return "a rule" if count == 1 else f"{count} rules"
