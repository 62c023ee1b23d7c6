"""When a search has found enough. Imports neither torch nor Optuna."""

from collections.abc import Sequence

from darkroom.config.tuning import TuningConfig
from darkroom.tuning.results import Trial, best_trial


def why_done(trials: Sequence[Trial], *, tuning: TuningConfig, seconds: float) -> str:
    """Why no further trial is needed; '' where one is.

    Args:
        trials: those that have ended, in their order.
        seconds: since this start of the search; the first trial is always made.
    """
    limit, patience, target = tuning.timeout_seconds, tuning.patience_trials, tuning.target_value
    best = best_trial(trials, direction=tuning.resolved_direction)
    if trials and limit and seconds >= limit:
        return f"{limit:g} s are over"
    if best is None:
        return ""
    if target is not None and _reaches(best.value, target=target, tuning=tuning):
        return f"{tuning.objective} {best.value:.4g} reaches {target:g}"
    if patience and len(trials) - 1 - best.number >= patience:
        return f"{patience} trials brought no better {tuning.objective}"
    return ""


def _reaches(value: float, *, target: float, tuning: TuningConfig) -> bool:
    return value >= target if tuning.resolved_direction == "maximize" else value <= target
