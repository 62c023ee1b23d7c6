"""Tune: search the hyperparameters that the configuration names."""

from typing import Annotated

from zenml import log_metadata, step

from darkroom.backends.weights import local_weights
from darkroom.config import Hyperparameters, TuningConfig
from darkroom.dataset import Dataset
from darkroom.files import workspace
from darkroom.progress import terminal_progress
from darkroom.tracking.runs import active_run
from darkroom.tracking.trials import TrialLog
from darkroom.tuning.results import TuningResult
from darkroom.tuning.search import tune
from steps.cache_policy import depends_on


@step(
    experiment_tracker=True,
    cache_policy=depends_on(
        "darkroom.tuning.search",
        "darkroom.training.loop",
        "darkroom.backends.weights",
        "darkroom.reports.figures",
        "darkroom.tracking.trials",
    ),
)
def tune_hyperparameters(
    dataset: Dataset, hyperparameters: Hyperparameters, tuning: TuningConfig
) -> tuple[
    Annotated[Hyperparameters, "best_hyperparameters"],
    Annotated[TuningResult, "trials"],
]:
    """Try values, return the best ones.

    Args:
        dataset: cleaned.
        hyperparameters: the values that are not searched.
        tuning: search space, strategy, objective and pruning.
    """
    from darkroom.reports.figures import tuning_figure

    run = active_run()
    trials = TrialLog(run)
    progress = terminal_progress()
    weights = local_weights(hyperparameters.weights, store=workspace() / "data", progress=progress)
    result = tune(
        dataset,
        hyperparameters=hyperparameters.replace(weights=weights),
        tuning=tuning,
        folder=workspace(),
        cache=workspace() / "cache",
        on_epoch=trials.epoch,
        on_trial=trials.finish,
        progress=progress,
    )
    trials.add_missing(result.trials)
    run.figure(tuning_figure(result), file="figures/tuning.png")
    log_metadata({"best": result.best, result.objective: result.best_value})
    return hyperparameters.replace(**result.best), result
