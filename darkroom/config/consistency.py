"""What no single key of a configuration shows: values that cannot work together."""

from pathlib import Path

from pydantic import ValidationError

from darkroom.config import Config, DeploymentConfig, TrainingConfig
from darkroom.config.grid import (
    Dimension,
    continuous_problem,
    counts,
    dimensions,
    trials_wanted,
)
from darkroom.config.hosting_kinds import kind_problems
from darkroom.config.metrics import natural_direction
from darkroom.config.problems import allowed_values, near_miss
from darkroom.config.tuning import Choices, FloatChoices, FloatRange, TuningConfig

_WEIGHTS_SUFFIXES = (".safetensors", ".tar.gz", ".tgz")
_SHORTEST_START_SECONDS = 60  # of ContainerStartupHealthCheckTimeoutInSeconds
_MOST_CHOICES = 30  # values of a categorical dimension, by SageMaker's API
_MOST_COMBINATIONS = 10_000  # as many as the largest search that SageMaker ever allows
_MOST_MANAGED_COMBINATIONS = 750
"""https://docs.aws.amazon.com/sagemaker/latest/dg/automatic-model-tuning-limits.html"""


def consistency_problems(config: Config) -> list[str]:
    """Problems, one line each, of values that are allowed alone but cannot work here."""
    return [
        *_weights_problems(config.model.weights),
        *_search_problems(config.tuning),
        *_process_problems(config),
        *_gate_problems(config.deployment),
    ]


def managed_problems(config: Config) -> list[str]:
    """Problems, one line each, of values that work on this machine but not on SageMaker."""
    return [
        *(_managed_search_problems(config) if config.tuning.enabled else []),
        *_instance_problems(config),
        *_start_problems(config),
        *_isolation_problems(config),
        *(kind_problems(config.sagemaker) if config.deployment.enabled else []),
    ]


def _managed_search_problems(config: Config) -> list[str]:
    tuning, space = config.tuning, config.tuning.search_space
    problems = []
    if 0 < tuning.patience_trials < 3:
        problems.append(
            f"tuning.patience_trials: {tuning.patience_trials}, but SageMaker takes 0 or at least 3"
        )
    if 0 < tuning.timeout_seconds < 120:
        problems.append(
            f"tuning.timeout_seconds: {tuning.timeout_seconds:g}, but SageMaker takes 0 or at "
            "least 120"
        )
    if space.epochs and space.epochs.low <= config.training.warmup_epochs:
        least = "choices" if isinstance(space.epochs, Choices) else "low"
        problems.append(
            f"training.warmup_epochs: {config.training.warmup_epochs:g} must be less than "
            f"tuning.search_space.epochs.{least} ({space.epochs.low}) on SageMaker, where all jobs "
            "of a tuning share it"
        )
    if tuning.strategy == "grid":
        problems += _size_problems(tuning, most=_MOST_MANAGED_COMBINATIONS, where="on SageMaker")
    return problems + [
        f"tuning.search_space.{name}: {number} values, but SageMaker takes at most {_MOST_CHOICES}"
        for name, number in _categories(tuning).items()
        if number > _MOST_CHOICES
    ]


def _categories(tuning: TuningConfig) -> dict[str, int]:
    """How many values each dimension has that SageMaker gets as a list of them."""
    space = tuning.search_space
    if tuning.strategy == "grid":
        return counts(space)
    listed = dimensions(space).items()
    return {
        name: len(searched.choices)
        for name, searched in listed
        if isinstance(searched, FloatChoices)
    }


def _instance_problems(config: Config) -> list[str]:
    """Each process on each machine needs at least one image of every batch."""
    count = config.sagemaker.training.instance_count
    processes = config.training.processes * count
    return [
        f"{key}: {min(sizes)} is less than {processes}, the processes on all {count} machines "
        "(training.processes × sagemaker.training.instance_count)"
        for key, sizes in batch_sizes(config).items()
        if count > 1 and min(sizes) < processes
    ]


def _start_problems(config: Config) -> list[str]:
    """SageMaker has bounds for an endpoint's start, where it lets one choose at all."""
    seconds = config.deployment.start_timeout_seconds
    is_chosen = config.deployment.enabled and config.sagemaker.hosting.kind != "serverless"
    if not is_chosen or seconds >= _SHORTEST_START_SECONDS:
        return []
    return [
        f"deployment.start_timeout_seconds: {seconds:g}, but SageMaker takes "
        f"{_SHORTEST_START_SECONDS} to 3600"
    ]


def _isolation_problems(config: Config) -> list[str]:
    if not (config.sagemaker.network.isolation and config.model.weights == "imagenet"):
        return []
    return [
        "model.weights: 'imagenet' is fetched from the internet, which jobs cannot reach where "
        "sagemaker.network.isolation is true; name a .safetensors file or a bundle, or 'none'"
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
    values = [
        problem
        for name, searched in dimensions(space).items()
        for problem in _value_problems(name, searched=searched)
    ]
    return values + _strategy_problems(tuning)


def _strategy_problems(tuning: TuningConfig) -> list[str]:
    space = tuning.search_space
    if tuning.strategy == "hyperband" and space.epochs is not None:
        return [
            "tuning.search_space.epochs: must be null for the strategy 'hyperband', which "
            "itself decides how many of training.epochs each trial gets"
        ]
    if tuning.strategy != "grid":
        return []
    continuous = [
        continuous_problem(name, searched=searched)
        for name, searched in dimensions(space).items()
        if isinstance(searched, FloatRange)
    ]
    return continuous or _grid_size_problems(tuning)


def _grid_size_problems(tuning: TuningConfig) -> list[str]:
    """A grid tries everything; another number than the default must be meant otherwise."""
    wanted = trials_wanted(tuning)
    if tuning.trials not in (wanted, TuningConfig.model_fields["trials"].default):
        return [
            f"tuning.trials: {tuning.trials}, but a grid tries all of its {wanted} "
            "combinations; leave tuning.trials out, or use the strategy 'random'"
        ]
    return _size_problems(tuning, most=_MOST_COMBINATIONS, where="in a grid")


def _size_problems(tuning: TuningConfig, *, most: int, where: str) -> list[str]:
    wanted = trials_wanted(tuning)
    if wanted <= most:
        return []
    factors = " × ".join(f"{name} {count}" for name, count in counts(tuning.search_space).items())
    return [
        f"tuning.search_space: {factors} are {wanted} combinations, of which {where} at most "
        f"{most} are allowed; give fewer values, or use the strategy 'random'"
    ]


def _value_problems(name: str, *, searched: Dimension) -> list[str]:
    """Values of a search that training itself would refuse."""
    if isinstance(searched, FloatChoices):
        values = [("choices", value) for value in searched.choices]
    else:
        values = [("low", searched.low), ("high", searched.high)]
    problems = []
    for key, value in values:
        try:
            TrainingConfig.model_validate({name: value})
        except ValidationError:
            problems.append(
                f"tuning.search_space.{name}.{key}: {value!r} is out of range; "
                f"allowed: {allowed_values(['training', name])}"
            )
    return problems


def _process_problems(config: Config) -> list[str]:
    """Each process needs at least one image of every batch."""
    processes = config.training.processes
    return [
        f"{key}: {min(sizes)} is less than training.processes ({processes}); "
        "a batch is shared by all processes"
        for key, sizes in batch_sizes(config).items()
        if min(sizes) < processes
    ]


def batch_sizes(config: Config) -> dict[str, tuple[int, ...]]:
    """The batch sizes that are trained with, by their key."""
    searched = config.tuning.search_space.batch_size
    if config.tuning.enabled and searched:
        return {"tuning.search_space.batch_size.choices": searched.choices}
    return {"training.batch_size": (config.training.batch_size,)}


def _gate_problems(deployment: DeploymentConfig) -> list[str]:
    threshold, metric = deployment.gate_threshold, deployment.gate_metric
    if not deployment.enabled or natural_direction(metric) == "minimize" or threshold <= 1:
        return []
    return [
        f"deployment.gate_threshold: {threshold!r} cannot be reached: {metric} is at most 1, "
        "so nothing would ever be deployed"
    ]
