"""Tune: search the hyperparameters that the configuration names."""

from typing import Annotated

from zenml import log_metadata, step

from darkroom.base.progress import terminal_progress
from darkroom.config import Hyperparameters
from darkroom.config.debugging import Debugging
from darkroom.config.sagemaker import Placement
from darkroom.config.tuning import TuningConfig
from darkroom.data.dataset import Dataset
from darkroom.tracking.runs import TrialLog, active_run
from darkroom.tuning.results import TuningResult
from steps.cache_policy import depends_on
from steps.chosen_backend import chosen_backend


@step(
    experiment_tracker=True,
    cache_policy=depends_on(
        "darkroom.tuning.search",
        "darkroom.training.loop",
        "darkroom.backends.storage.weights",
        "darkroom.reports.figures",
        "darkroom.tracking.runs",
    ),
)
def tune_hyperparameters(
    dataset: Dataset,
    hyperparameters: Hyperparameters,
    tuning: TuningConfig,
    debugging: Debugging,
    placement: Placement,
    weights_version: str,
) -> tuple[
    Annotated[Hyperparameters, "best_hyperparameters"],
    Annotated[TuningResult, "trials"],
]:
    """Try values, return the best ones.

    Args:
        dataset: cleaned.
        hyperparameters: the values that are not searched.
        tuning: search space, strategy, objective and pruning.
        debugging: how trials are recorded: the best one is the final training.
        placement: whether the trials run here or as a managed tuning job.
        weights_version: of the initial weights' content, a part of the cache key.
    """
    from darkroom.reports.figures import tuning_figure

    run = active_run()
    trials = TrialLog(run)
    result = chosen_backend(placement).tune(
        dataset,
        hyperparameters=hyperparameters,
        tuning=tuning,
        debugging=debugging,
        on_epoch=trials.epoch,
        on_trial=trials.finish,
        progress=terminal_progress(),
    )
    trials.add_missing(result.trials)
    run.figure(tuning_figure(result), file="figures/tuning.png")
    log_metadata({"best": result.best, result.objective: result.best_value})
    return hyperparameters.replace(**result.best), result
