"""When a training job is stopped early, and when a tuning job has found enough."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

_JOBS_TO_COMPARE = 3
"""Earlier jobs that must have come as far; AWS does not publish how many it asks for."""

_CONVERGED_JOBS = 10
_CONVERGED_SHARE = 0.001
"""AWS does not publish its test of convergence; here: the best of all jobs gained less than this
share of the spread of all objectives in the last ten jobs."""


def falls_behind_median(
    values: Sequence[float], *, earlier: Sequence[Sequence[float]], maximize: bool
) -> bool:
    """Early stopping `Auto`: worse than the median of the earlier jobs' running averages.

    values, earlier: the objective metric as emitted, step by step, by the job in question and by
    those before it. Compared at the last step of `values`, with jobs that came as far
    (SageMaker's developer guide, "Stop Training Jobs Early").
    """
    step = len(values)
    averages = [fmean(each[:step]) for each in earlier if len(each) >= step > 0]
    if len(averages) < _JOBS_TO_COMPARE:
        return False
    middle = median(averages)
    return values[-1] < middle if maximize else values[-1] > middle


@dataclass(frozen=True)
class Criteria:
    """TuningJobCompletionCriteria of a request."""

    maximize: bool
    target: float | None
    patience: int | None
    """Jobs in a row without a better objective."""
    convergence: bool

    def fulfilled(self, objectives: Sequence[float]) -> str | None:
        """The name of the criterion that ends the search; objectives in order of completion."""
        if self.target is not None and self._reached(objectives):
            return "TargetObjectiveMetricValue"
        if self.patience is not None and jobs_without_improvement(
            objectives, maximize=self.maximize
        ) >= max(self.patience, 1):
            return "BestObjectiveNotImproving"
        if self.convergence and _converged(objectives, maximize=self.maximize):
            return "ConvergenceDetected"
        return None

    def _reached(self, objectives: Sequence[float]) -> bool:
        sign = 1 if self.maximize else -1
        return any(sign * value >= sign * float(self.target or 0) for value in objectives)


def read_criteria(config: Mapping[str, Any]) -> Criteria:
    """The criteria of a HyperParameterTuningJobConfig."""
    given = config.get("TuningJobCompletionCriteria", {})
    return Criteria(
        maximize=config["HyperParameterTuningJobObjective"]["Type"] == "Maximize",
        target=given.get("TargetObjectiveMetricValue"),
        patience=given.get("BestObjectiveNotImproving", {}).get(
            "MaxNumberOfTrainingJobsNotImproving"
        ),
        convergence=given.get("ConvergenceDetected", {}).get("CompleteOnConvergence") == "Enabled",
    )


def jobs_without_improvement(objectives: Sequence[float], *, maximize: bool) -> int:
    """How many of the last jobs did not better the best before them."""
    if not objectives:
        return 0
    best = (max if maximize else min)(objectives)
    return len(objectives) - 1 - list(objectives).index(best)


def _converged(objectives: Sequence[float], *, maximize: bool) -> bool:
    if len(objectives) < 2 * _CONVERGED_JOBS:
        return False
    choose = max if maximize else min
    gain = abs(choose(objectives) - choose(objectives[:-_CONVERGED_JOBS]))
    return gain <= _CONVERGED_SHARE * (max(objectives) - min(objectives))
