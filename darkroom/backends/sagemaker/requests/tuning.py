"""Requests of tuning jobs."""

from math import ceil

from darkroom.backends.sagemaker.identity import JobIdentity, tags_of
from darkroom.backends.sagemaker.requests.training import (
    Request,
    checkpoint_config,
    job_definition,
)
from darkroom.backends.sagemaker.site import Site
from darkroom.config import Hyperparameters
from darkroom.config.debugging import Debugging
from darkroom.config.grid import Dimension, dimensions, grid_values, trials_wanted
from darkroom.config.sagemaker import TuningJobConfig
from darkroom.config.tuning import FloatChoices, FloatRange, IntRange, TuningConfig
from darkroom.training.hyperparameters import debugging_strings, encoded, to_strings

_VALUES_AFTER_EPOCHS = 1
"""A job emits the objective once an epoch, and at its end once more: that of the kept epoch.

SageMaker stops a job that reaches Hyperband's MaxResource (developer guide, "Hyperband"), so that
it has to be more than all of them: a job that is stopped at its last line is no complete trial."""

_STRATEGIES = {"tpe": "Bayesian", "random": "Random", "grid": "Grid", "hyperband": "Hyperband"}


def tuning_request(
    name: str,
    *,
    identity: JobIdentity,
    dataset: str,
    hyperparameters: Hyperparameters,
    tuning: TuningConfig,
    debugging: Debugging,
    site: Site,
    weights: str = "",
) -> Request:
    """CreateHyperParameterTuningJob.

    Args:
        dataset: s3:// URI of the published data set.
        hyperparameters: the values that are not searched; its seed is the search's.
        weights: s3:// prefix where the initial weights lie; empty: on S3 are none.

    Raises:
        UserError: a grid with a continuous dimension.
    """
    checkpoints = {"CheckpointConfig": checkpoint_config(identity, site=site)}
    return {
        "HyperParameterTuningJobName": name,
        "HyperParameterTuningJobConfig": _search(
            tuning, hyperparameters=hyperparameters, jobs=site.config.tuning
        ),
        "TrainingJobDefinition": {
            "StaticHyperParameters": {
                **_static_strings(hyperparameters, tuning=tuning),
                **debugging_strings(debugging.of_trials),
            },
            **job_definition(identity, dataset=dataset, site=site, weights=weights),
            **(checkpoints if site.config.training.spot else {}),
        },
        **_warm_start(site.config.tuning),
        "Tags": tags_of(site, identity=identity.digest, kind=identity.kind),
    }


def _search(
    tuning: TuningConfig, *, hyperparameters: Hyperparameters, jobs: TuningJobConfig
) -> Request:
    return {
        **_strategy(tuning, epochs=hyperparameters.epochs),
        "HyperParameterTuningJobObjective": {
            "Type": tuning.resolved_direction.capitalize(),
            "MetricName": f"validation_{tuning.objective}",
        },
        "ResourceLimits": _limits(tuning, jobs=jobs),
        "ParameterRanges": _ranges(tuning),
        "TrainingJobEarlyStoppingType": _early_stopping(tuning),
        **_completion(tuning, jobs=jobs),
        "RandomSeed": hyperparameters.seed,
    }


def _static_strings(hyperparameters: Hyperparameters, *, tuning: TuningConfig) -> dict[str, str]:
    """The hyperparameters that are not searched, as SageMaker carries them."""
    searched = dimensions(tuning.search_space)
    return {
        name: text for name, text in to_strings(hyperparameters).items() if name not in searched
    }


def _strategy(tuning: TuningConfig, *, epochs: int) -> Request:
    if tuning.strategy != "hyperband":
        return {"Strategy": _STRATEGIES[tuning.strategy]}
    return {
        "Strategy": "Hyperband",
        "StrategyConfig": {
            "HyperbandStrategyConfig": {
                "MinResource": 1,
                "MaxResource": epochs + _VALUES_AFTER_EPOCHS + 1,
            }
        },
    }


def _limits(tuning: TuningConfig, *, jobs: TuningJobConfig) -> Request:
    """A grid's number of jobs follows from its ranges, and AWS refuses to be told."""
    wanted = trials_wanted(tuning)
    return {
        **({} if tuning.strategy == "grid" else {"MaxNumberOfTrainingJobs": wanted}),
        "MaxParallelTrainingJobs": min(jobs.parallel_jobs, wanted),
        **({"MaxRuntimeInSeconds": ceil(tuning.timeout_seconds)} if tuning.timeout_seconds else {}),
    }


def _early_stopping(tuning: TuningConfig) -> str:
    """Hyperband stops jobs by itself, and AWS refuses both together."""
    return "Auto" if tuning.pruning == "median" and tuning.strategy != "hyperband" else "Off"


def _ranges(tuning: TuningConfig) -> Request:
    ranges: dict[str, list[Request]] = {
        "ContinuousParameterRanges": [],
        "IntegerParameterRanges": [],
        "CategoricalParameterRanges": [],
    }
    for name, searched in dimensions(tuning.search_space).items():
        if _is_categorical(searched, tuning=tuning):
            values = [encoded(value) for value in grid_values(name, searched=searched)]
            ranges["CategoricalParameterRanges"].append({"Name": name, "Values": values})
        elif isinstance(searched, FloatRange):
            ranges["ContinuousParameterRanges"].append(_range(name, searched=searched))
        elif isinstance(searched, IntRange):
            ranges["IntegerParameterRanges"].append(_range(name, searched=searched))
    return {kind: each for kind, each in ranges.items() if each}


def _is_categorical(searched: Dimension, *, tuning: TuningConfig) -> bool:
    """A grid has nothing else; and a range of one value is none."""
    if tuning.strategy == "grid" or isinstance(searched, FloatChoices):
        return True
    return isinstance(searched, IntRange) and searched.low == searched.high


def _range(name: str, *, searched: FloatRange | IntRange) -> Request:
    return {
        "Name": name,
        "MinValue": repr(searched.low),
        "MaxValue": repr(searched.high),
        "ScalingType": "Logarithmic" if searched.log else "Linear",
    }


def _completion(tuning: TuningConfig, *, jobs: TuningJobConfig) -> Request:
    criteria: Request = {}
    if tuning.target_value is not None:
        criteria["TargetObjectiveMetricValue"] = tuning.target_value
    if tuning.patience_trials:
        criteria["BestObjectiveNotImproving"] = {
            "MaxNumberOfTrainingJobsNotImproving": tuning.patience_trials
        }
    if jobs.stop_when_converged:
        criteria["ConvergenceDetected"] = {"CompleteOnConvergence": "Enabled"}
    return {"TuningJobCompletionCriteria": criteria} if criteria else {}


def _warm_start(jobs: TuningJobConfig) -> Request:
    if not jobs.warm_start_from:
        return {}
    return {
        "WarmStartConfig": {
            "ParentHyperParameterTuningJobs": [
                {"HyperParameterTuningJobName": name} for name in jobs.warm_start_from
            ],
            "WarmStartType": jobs.warm_start_type,
        }
    }
