"""The training jobs of a tuning, as trials of a search."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from darkroom.backends.sagemaker.clients import Clients
from darkroom.backends.sagemaker.job_failures import without_kind
from darkroom.backends.sagemaker.job_following import ENDED
from darkroom.backends.sagemaker.job_logs import JobLog
from darkroom.backends.sagemaker.metric_lines import EpochReader
from darkroom.config.metrics import Metric
from darkroom.training.history import EpochMetrics
from darkroom.training.hyperparameters import from_strings
from darkroom.tuning.results import State, Trial, Value

if TYPE_CHECKING:
    from mypy_boto3_sagemaker.type_defs import HyperParameterTrainingJobSummaryTypeDef

_STATES: dict[str, State] = {"Completed": "complete", "Stopped": "pruned", "Failed": "failed"}
_LATE_LOOKS = 3
"""At the log of a job that is complete, while it lacks the line that comes last."""


class TrialJob:
    """One training job of a tuning, looked at again and again."""

    def __init__(self, name: str, *, number: int, objective: Metric) -> None:
        self.name, self.number, self._objective = name, number, objective
        self._log, self._epochs = JobLog(name), EpochReader()
        self._late_looks = 0
        self.trial: Trial | None = None
        """What came of it, once it has ended."""
        self.reason = ""
        """Why it failed, in SageMaker's words."""

    @property
    def last_lines(self) -> list[str]:
        """Of its log."""
        return self._log.last_lines

    def new_epochs(self, clients: Clients) -> list[EpochMetrics]:
        """The epochs that came since the last look at the log."""
        return list(self._epochs.read(self._log.new_lines(clients)))

    def has_ended(self, summary: "HyperParameterTrainingJobSummaryTypeDef") -> bool:
        """Take note of the job's state, after its log was read.

        A complete job whose log lacks its end has not ended yet: lines may arrive late.
        """
        status = summary["TrainingJobStatus"]
        if status not in ENDED:
            return False
        if status == "Completed" and not self._epochs.kept and self._late_looks < _LATE_LOOKS:
            self._late_looks += 1
            return False
        self.reason = summary.get("FailureReason", "")
        self.trial = self._trial(summary)
        return True

    def _trial(self, summary: "HyperParameterTrainingJobSummaryTypeDef") -> Trial:
        state, objective = _STATES[summary["TrainingJobStatus"]], self._value(summary)
        error = without_kind(self.reason) if state == "failed" else None
        if state == "complete" and objective is None:
            state, error = "failed", f"its log shows no validation {self._objective}"
        history = self._epochs.history
        return Trial(
            number=self.number,
            values=typed_values(summary["TunedHyperParameters"]),
            state=state,
            objective=None if state == "failed" else objective,
            epochs=history[-1].epoch if history else 0,
            seconds=_seconds(summary),
            error=error,
        )

    def _value(self, summary: "HyperParameterTrainingJobSummaryTypeDef") -> float | None:
        """Of the kept epoch, or the last: by the log, which has more digits than the API."""
        if self._objective in self._epochs.kept:
            return self._epochs.kept[self._objective]
        final = summary.get("FinalHyperParameterTuningJobObjectiveMetric")
        if final:
            return final["Value"]
        history = self._epochs.history
        return history[-1].validation.get(self._objective) if history else None


def typed_values(tuned: Mapping[str, str]) -> dict[str, Value]:
    """What SageMaker chose, as numbers.

    Raises:
        UserError: they are no hyperparameters of ours.
    """
    hyperparameters = from_strings(tuned).model_dump()
    return {name: value for name, value in hyperparameters.items() if name in tuned}


def _seconds(summary: "HyperParameterTrainingJobSummaryTypeDef") -> float:
    start, end = summary.get("TrainingStartTime"), summary.get("TrainingEndTime")
    return (end - start).total_seconds() if start and end else 0.0
