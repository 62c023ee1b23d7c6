"""Rules of CreateHyperParameterTuningJob.

https://docs.aws.amazon.com/sagemaker/latest/dg/automatic-model-tuning-how-it-works.html
https://docs.aws.amazon.com/sagemaker/latest/dg/automatic-model-tuning-limits.html
"""

from collections.abc import Iterator, Mapping
from typing import Any

from darkroom.backends.sagemaker.requests import RuleProblem, repeated
from darkroom.backends.sagemaker.training import rules

_MAX_SEARCHED = 30
_MAX_JOBS = {"Bayesian": 750, "Random": 10_000, "Hyperband": 750, "Grid": 750}
_MAX_VALUES = 30
_MAX_PARALLEL = 100
_KINDS = ("ContinuousParameterRanges", "IntegerParameterRanges", "CategoricalParameterRanges")
Problems = Iterator[RuleProblem]


def tuning_job(request: Mapping[str, Any]) -> Problems:
    """All rules of a tuning job."""
    config = request.get("HyperParameterTuningJobConfig", {})
    yield from _strategy_problems(config)
    yield from _limit_problems(config)
    yield from _definitions(request, config)
    yield from _warm_start_problems(request.get("WarmStartConfig"))


def _strategy_problems(config: Mapping[str, Any]) -> Problems:
    """Hyperband stops jobs itself; Grid tries each combination of categories once."""
    strategy = config.get("Strategy")
    early = config.get("TrainingJobEarlyStoppingType", "Off")
    if strategy == "Hyperband" and early == "Auto":
        yield RuleProblem(
            "TrainingJobEarlyStoppingType must be Off with the strategy Hyperband, which stops "
            "training jobs by a way of its own"
        )
    hyperband = config.get("StrategyConfig", {}).get("HyperbandStrategyConfig")
    if hyperband and strategy != "Hyperband":
        yield RuleProblem(f"HyperbandStrategyConfig cannot be used with the strategy {strategy}")
    if hyperband and hyperband.get("MinResource", 1) > hyperband.get("MaxResource", 10**9):
        yield RuleProblem("HyperbandStrategyConfig: MinResource is greater than MaxResource")
    if strategy == "Grid":
        yield from _grid(config)


def _grid(config: Mapping[str, Any]) -> Problems:
    ranges = config.get("ParameterRanges", {})
    for kind in _KINDS[:2]:
        if ranges.get(kind):
            yield RuleProblem(f"the strategy Grid takes categorical parameters only, no {kind}")
    combinations = 1
    for parameter in ranges.get(_KINDS[2], ()):
        combinations *= len(parameter.get("Values", ()))
    if combinations > _MAX_JOBS["Grid"]:
        yield RuleProblem(
            f"the strategy Grid makes {combinations} training jobs of these ranges, and "
            f"{_MAX_JOBS['Grid']} are allowed"
        )
    most = config.get("ResourceLimits", {}).get("MaxNumberOfTrainingJobs")
    if most is not None and most != combinations:
        yield RuleProblem(
            f"MaxNumberOfTrainingJobs ({most}) must be left out with the strategy Grid, or be the "
            f"number of combinations ({combinations})"
        )


def _limit_problems(config: Mapping[str, Any]) -> Problems:
    limits, strategy = config.get("ResourceLimits", {}), str(config.get("Strategy"))
    jobs, parallel = limits.get("MaxNumberOfTrainingJobs"), limits.get("MaxParallelTrainingJobs", 1)
    if strategy in _MAX_JOBS and strategy != "Grid" and jobs is None:
        yield RuleProblem(f"MaxNumberOfTrainingJobs is required with the strategy {strategy}")
    if jobs is not None and jobs > _MAX_JOBS.get(strategy, jobs):
        most = _MAX_JOBS[strategy]
        yield RuleProblem(f"MaxNumberOfTrainingJobs ({jobs}) is more than {most} with {strategy}")
    if jobs is not None and parallel > jobs:
        yield RuleProblem(
            f"MaxParallelTrainingJobs ({parallel}) is more than MaxNumberOfTrainingJobs ({jobs})"
        )
    if parallel > _MAX_PARALLEL:
        yield RuleProblem(f"MaxParallelTrainingJobs ({parallel}) is more than {_MAX_PARALLEL}")


def _definitions(request: Mapping[str, Any], config: Mapping[str, Any]) -> Problems:
    one, several = request.get("TrainingJobDefinition"), request.get("TrainingJobDefinitions")
    if bool(one) == bool(several):
        yield RuleProblem("either TrainingJobDefinition or TrainingJobDefinitions is required")
    for name in repeated(d.get("DefinitionName") for d in several or ()):
        yield RuleProblem(f"TrainingJobDefinitions: the DefinitionName {name!r} is there twice")
    if several and config.get("HyperParameterTuningJobObjective"):
        yield RuleProblem("TrainingJobDefinitions have objectives of their own (TuningObjective)")
    for definition in [one] if one else several or ():
        single = definition is one
        objective = config.get("HyperParameterTuningJobObjective") if single else None
        ranges = config.get("ParameterRanges") if single else None
        yield from _definition(
            definition,
            objective=objective or definition.get("TuningObjective"),
            ranges=ranges or definition.get("HyperParameterRanges") or {},
        )


def _definition(
    definition: Mapping[str, Any],
    *,
    objective: Mapping[str, Any] | None,
    ranges: Mapping[str, Any],
) -> Problems:
    specification = definition.get("AlgorithmSpecification", {})
    yield from rules.definition(definition)
    yield from rules.metrics(specification.get("MetricDefinitions", ()))
    yield from _machines(definition)
    yield from _objective(specification, objective=objective)
    yield from _range_problems(ranges, fixed=definition.get("StaticHyperParameters", {}))


def _machines(definition: Mapping[str, Any]) -> Problems:
    resources = definition.get("ResourceConfig")
    flexible = definition.get("HyperParameterTuningResourceConfig")
    if bool(resources) == bool(flexible):
        yield RuleProblem("either ResourceConfig or HyperParameterTuningResourceConfig is required")
    if resources:
        spot = bool(definition.get("EnableManagedSpotTraining"))
        yield from rules.machines(resources, spot=spot)


def _objective(
    specification: Mapping[str, Any], *, objective: Mapping[str, Any] | None
) -> Problems:
    if objective is None:
        yield RuleProblem("a tuning job needs an objective: HyperParameterTuningJobObjective")
        return
    names = [d.get("Name") for d in specification.get("MetricDefinitions", ())]
    # An image of one's own tells nothing of its metrics but by their definitions.
    if specification.get("TrainingImage") and objective.get("MetricName") not in names:
        yield RuleProblem(
            f"the objective metric {objective.get('MetricName')!r} is not among the "
            f"MetricDefinitions {names}"
        )


def _range_problems(ranges: Mapping[str, Any], *, fixed: Mapping[str, str]) -> Problems:
    parameters = [parameter for kind in _KINDS for parameter in ranges.get(kind, ())]
    names = [str(p.get("Name")) for p in parameters] + [
        str(p.get("Name")) for p in ranges.get("AutoParameters", ())
    ]
    if not names:
        yield RuleProblem("ParameterRanges: there is nothing to tune")
    if len(names) > _MAX_SEARCHED:
        yield RuleProblem(f"ParameterRanges: {len(names)} parameters, {_MAX_SEARCHED} are allowed")
    for name in repeated(names):
        yield RuleProblem(f"ParameterRanges: {name!r} is there twice")
    for name in sorted(set(names) & set(fixed)):
        yield RuleProblem(f"the hyperparameter {name!r} is both static and tuned")
    for kind in _KINDS[:2]:
        for parameter in ranges.get(kind, ()):
            yield from _interval(parameter, whole=kind == "IntegerParameterRanges")
    for parameter in ranges.get(_KINDS[2], ()):
        if len(parameter.get("Values", ())) > _MAX_VALUES:
            yield RuleProblem(
                f"the parameter {parameter.get('Name')!r} has {len(parameter['Values'])} values, "
                f"and {_MAX_VALUES} are allowed"
            )
        for value in repeated(parameter.get("Values", ())):
            yield RuleProblem(f"the parameter {parameter.get('Name')!r} has {value!r} twice")


def _interval(parameter: Mapping[str, Any], *, whole: bool) -> Problems:
    name, scale = parameter.get("Name"), parameter.get("ScalingType", "Auto")
    try:
        number = int if whole else float
        low, high = number(parameter["MinValue"]), number(parameter["MaxValue"])
    except (KeyError, ValueError):
        kind = "whole numbers" if whole else "numbers"
        yield RuleProblem(f"the bounds of the parameter {name!r} must be {kind}")
        return
    if low > high:
        yield RuleProblem(f"the parameter {name!r}: MinValue {low} is greater than MaxValue {high}")
    if scale == "Logarithmic" and low <= 0:
        yield RuleProblem(f"the parameter {name!r}: Logarithmic scaling needs MinValue above 0")
    if scale == "ReverseLogarithmic" and whole:
        yield RuleProblem(f"the parameter {name!r}: integers take no ReverseLogarithmic scaling")
    elif scale == "ReverseLogarithmic" and not 0 <= low <= high < 1:
        yield RuleProblem(f"the parameter {name!r}: ReverseLogarithmic scaling needs 0 ≤ x < 1")


def _warm_start_problems(config: Mapping[str, Any] | None) -> Problems:
    parents = [
        p.get("HyperParameterTuningJobName")
        for p in (config or {}).get("ParentHyperParameterTuningJobs", ())
    ]
    if config is not None and not 1 <= len(parents) <= 5:
        yield RuleProblem(f"WarmStartConfig: {len(parents)} parents; 1 to 5 are allowed")
    for name in repeated(parents):
        yield RuleProblem(f"WarmStartConfig: the parent {name!r} is there twice")
