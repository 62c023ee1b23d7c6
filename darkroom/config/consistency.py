"""What no single key of a configuration shows: values that cannot work together."""

from pathlib import Path

from pydantic import ValidationError

from darkroom.config import (
    Config,
    DeploymentConfig,
    FloatRange,
    SearchSpace,
    TrainingConfig,
    TuningConfig,
    natural_direction,
)
from darkroom.config.problems import allowed_values, near_miss

_WEIGHTS_SUFFIXES = (".safetensors", ".tar.gz", ".tgz")


def consistency_problems(config: Config) -> list[str]:
    """Problems, one line each, of values that are allowed alone but cannot work here."""
    return [
        *_weights_problems(config.model.weights),
        *_search_problems(config.tuning),
        *_process_problems(config),
        *_gate_problems(config.deployment),
    ]


def _weights_problems(weights: str) -> list[str]:
    if weights in ("imagenet", "none") or "://" in weights or Path(weights).expanduser().exists():
        return []
    if weights.endswith(_WEIGHTS_SUFFIXES) or "/" in weights:
        return [f"model.weights: {weights!r}: no such file or folder"]
    match = near_miss(weights, among=("imagenet", "none"))
    hint = f"; did you mean {match!r}?" if match else ""
    return [
        f"model.weights: {weights!r} is neither 'imagenet', 'none' nor an existing bundle or "
        f".safetensors file{hint}"
    ]


def _search_problems(tuning: TuningConfig) -> list[str]:
    space = tuning.search_space
    if not tuning.enabled:
        return []
    if not any(value is not None for _, value in space):
        return [
            "tuning.search_space: every range is null, so there is nothing to search; "
            "give one, or set tuning.enabled to false"
        ]
    return [
        problem
        for name in SearchSpace.model_fields
        if isinstance(searched := getattr(space, name), FloatRange)
        for problem in _range_problems(name, searched=searched)
    ]


def _range_problems(name: str, *, searched: FloatRange) -> list[str]:
    """Ends of a search range that training itself would refuse."""
    problems = []
    for end, value in (("low", searched.low), ("high", searched.high)):
        try:
            TrainingConfig.model_validate({name: value})
        except ValidationError:
            problems.append(
                f"tuning.search_space.{name}.{end}: {value!r} is out of range; "
                f"allowed: {allowed_values(['training', name])}"
            )
    return problems


def _process_problems(config: Config) -> list[str]:
    """Each process needs at least one image of every batch."""
    processes, searched = config.training.processes, config.tuning.search_space.batch_size
    sizes = {"training.batch_size": config.training.batch_size}
    if config.tuning.enabled and searched:
        sizes = {"tuning.search_space.batch_size.choices": min(searched.choices)}
    return [
        f"{key}: {size} is less than training.processes ({processes}); "
        "a batch is shared by all processes"
        for key, size in sizes.items()
        if size < processes
    ]


def _gate_problems(deployment: DeploymentConfig) -> list[str]:
    threshold, metric = deployment.gate_threshold, deployment.gate_metric
    if not deployment.enabled or natural_direction(metric) == "minimize" or threshold <= 1:
        return []
    return [
        f"deployment.gate_threshold: {threshold!r} cannot be reached: {metric} is at most 1, "
        "so nothing would ever be deployed"
    ]
