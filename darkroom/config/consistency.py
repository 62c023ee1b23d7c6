"""Check a configuration as a whole: keys that contradict each other, and keys without an effect."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from darkroom.base.values import near_miss
from darkroom.config import Config, DeploymentConfig, TrainingConfig
from darkroom.config.problems import allowed_values
from darkroom.config.sagemaker import kind_problems
from darkroom.config.sections import natural_direction
from darkroom.config.tuning import (
    Choices,
    Dimension,
    FloatChoices,
    FloatRange,
    TuningConfig,
    continuous_problem,
    counts,
    dimensions,
    trials_wanted,
)

# --- consistency ---

_WEIGHTS_SUFFIXES = (".safetensors", ".tar.gz", ".tgz")
_MIN_START_SECONDS = 60  # of ContainerStartupHealthCheckTimeoutInSeconds
_MAX_CHOICES = 30  # values of a categorical dimension, by SageMaker's API
_MAX_COMBINATIONS = 10_000  # as many as the largest search that SageMaker ever allows
_MAX_MANAGED_COMBINATIONS = 750
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
        problems += _size_problems(tuning, most=_MAX_MANAGED_COMBINATIONS, where="on SageMaker")
    return problems + [
        f"tuning.search_space.{name}: {number} values, but SageMaker takes at most {_MAX_CHOICES}"
        for name, number in _categories(tuning).items()
        if number > _MAX_CHOICES
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
    if not is_chosen or seconds >= _MIN_START_SECONDS:
        return []
    return [
        f"deployment.start_timeout_seconds: {seconds:g}, but SageMaker takes "
        f"{_MIN_START_SECONDS} to 3600"
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
    return _size_problems(tuning, most=_MAX_COMBINATIONS, where="in a grid")


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
    if natural_direction(metric) == "maximize" and threshold > 1:
        bound = "is at most 1"
    elif metric == "log_loss" and not threshold:
        bound = "has to be at most that, and is above 0 for every model"
    else:
        return []
    if not deployment.enabled:
        return []
    return [
        f"deployment.gate_threshold: {threshold!r} cannot be reached: {metric} {bound}, "
        "so nothing would ever be deployed"
    ]


# --- ineffective ---
# Settings that somebody made and nothing reads: on this stack, or beside these others.
#
# A test changes each setting in turn, and finds it here or in what is sent and trained with.

Condition = Callable[[Config], bool]


@dataclass(frozen=True)
class _Unread:
    """Keys that nothing reads where a condition holds."""

    reason: str
    """Goes on after 'no effect'."""
    holds: Condition
    keys: tuple[str, ...]
    """One that ends in a dot stands for all below it."""


def ineffective_settings(
    config: Config,
    *,
    stack: str,
    chosen: Config = Config(),  # noqa: B008 - immutable
) -> list[str]:
    """Sentences on the settings that somebody made and that change nothing in a run.

    Args:
        stack: local, rehearsal or sagemaker.
        chosen: what it would be, had nobody set anything.
    """
    unread = _BY_STACK[stack]
    by_reason: dict[str, list[str]] = {}
    for key in _changed(config.model_dump(), defaults=chosen.model_dump()):
        reason = next(
            (one.reason for one in (*unread, *_ANYWHERE) if _is_unread(key, one, config)), ""
        )
        if reason:
            by_reason.setdefault(reason.format(stack=stack), []).append(key)
    told = [f"no effect {reason}: {', '.join(keys)}" for reason, keys in by_reason.items()]
    return told + _overruled(config)


def _is_unread(key: str, unread: _Unread, config: Config) -> bool:
    named = any(
        key.startswith(one) and key != f"{one}enabled" if one.endswith(".") else key == one
        for one in unread.keys
    )
    return named and unread.holds(config)


def _changed(
    values: Mapping[str, Any], *, defaults: Mapping[str, Any], prefix: str = ""
) -> Iterator[str]:
    """Dotted keys of the values that differ from their defaults."""
    for name, value in values.items():
        default, key = defaults.get(name), f"{prefix}{name}"
        if isinstance(value, Mapping) and isinstance(default, Mapping) and default:
            yield from _changed(value, defaults=default, prefix=f"{key}.")
        elif value != default:
            yield key


def _overruled(config: Config) -> list[str]:
    """Values of `training` that the search never tries: its ranges decide."""
    if not config.tuning.enabled:
        return []
    told, defaults = [], Config().training
    for name, searched in dimensions(config.tuning.search_space).items():
        value = getattr(config.training, name)
        if value == getattr(defaults, name):
            continue
        if isinstance(searched, FloatChoices):
            inside, ranges = value in searched.choices, ", ".join(map(str, searched.choices))
        else:
            inside = searched.low <= value <= searched.high
            ranges = f"{searched.low:g} to {searched.high:g}"
        if not inside:
            told.append(
                f"no effect: training.{name} ({value:g}), since tuning.search_space.{name} decides "
                f"({ranges}); set that to null to train with training.{name}"
            )
    return told


_LOCAL = (_Unread("on --stack {stack}", lambda _: True, ("sagemaker.",)),)

_ANYWHERE = (
    _Unread(
        "while tuning.enabled is false",
        lambda config: not config.tuning.enabled,
        ("tuning.", "sagemaker.tuning."),
    ),
    _Unread(
        "with the strategy 'hyperband', which itself decides which trials go on",
        lambda config: config.tuning.strategy == "hyperband",
        ("tuning.pruning", "tuning.pruning_warmup_trials"),
    ),
    _Unread(
        "while tuning.pruning is 'none'",
        lambda config: config.tuning.pruning == "none",
        ("tuning.pruning_warmup_trials",),
    ),
    _Unread(
        "while training.optimizer is not 'sgd'",
        lambda config: config.training.optimizer != "sgd",
        ("training.momentum",),
    ),
    _Unread(
        "while recording.backend is 'off'",
        lambda config: config.recording.backend == "off",
        (
            "recording.every_steps",
            "recording.first_steps",
            "recording.losses_every_steps",
            "recording.tensors",
            "recording.system_milliseconds",
            "recording.profiled_steps",
            "diagnosis.",
        ),
    ),
    _Unread(
        "while diagnosis.enabled is false",
        lambda config: not config.diagnosis.enabled,
        ("diagnosis.live", "diagnosis.rules", "diagnosis.custom"),
    ),
    _Unread(
        "while compilation.enabled is false",
        lambda config: not config.compilation.enabled,
        ("compilation.",),
    ),
    _Unread(
        "while deployment.enabled is false",
        lambda config: not config.deployment.enabled,
        (
            "deployment.gate_metric",
            "deployment.gate_threshold",
            "deployment.check_images",
            "deployment.tolerance",
            "deployment.start_timeout_seconds",
            "batch.",
        ),
    ),
)

_IN_THE_IMAGE = (
    _Unread(
        "on --stack {stack}, whose image has no TVM",
        lambda config: config.compilation.enabled,
        ("compilation.tvm",),
    ),
)

_HOSTING = "sagemaker.hosting."
_MANAGED = (
    _Unread(
        "while deployment.enabled is false",
        lambda config: not config.deployment.enabled,
        (_HOSTING, "sagemaker.transform."),
    ),
    _Unread(
        "on --stack {stack}, where SageMaker's own early stopping decides",
        lambda config: config.tuning.enabled,
        ("tuning.pruning_warmup_trials",),
    ),
    _Unread(
        "while sagemaker.training.spot is false",
        lambda config: not config.sagemaker.training.spot,
        ("sagemaker.training.max_wait_seconds",),
    ),
    _Unread(
        "on one machine (sagemaker.training.instance_count)",
        lambda config: config.sagemaker.training.instance_count == 1,
        ("sagemaker.network.encrypt_traffic",),
    ),
    _Unread(
        "while sagemaker.tuning.warm_start_from is empty",
        lambda config: not config.sagemaker.tuning.warm_start_from,
        ("sagemaker.tuning.warm_start_type",),
    ),
    _Unread(
        "while batch.split is 'none'",
        lambda config: config.batch.split == "none",
        ("sagemaker.transform.",),
    ),
    _Unread(
        "on an endpoint with one model, as a run makes it",
        lambda _: True,
        (f"{_HOSTING}multi_model.",),
    ),
    _Unread(
        "while sagemaker.hosting.kind is 'serverless'",
        lambda config: config.sagemaker.hosting.kind == "serverless",
        (
            f"{_HOSTING}instance_type",
            f"{_HOSTING}autoscaling.",
            f"{_HOSTING}rollout.",
            "deployment.start_timeout_seconds",
        ),
    ),
    _Unread(
        "while sagemaker.hosting.kind is not 'serverless'",
        lambda config: config.sagemaker.hosting.kind != "serverless",
        (f"{_HOSTING}serverless.",),
    ),
    _Unread(
        "while sagemaker.hosting.kind is not 'asynchronous'",
        lambda config: config.sagemaker.hosting.kind != "asynchronous",
        (f"{_HOSTING}asynchronous.",),
    ),
    _Unread(
        "while autoscaling.max_instances is not above min_instances",
        lambda config: not config.sagemaker.hosting.scales,
        (
            f"{_HOSTING}autoscaling.invocations_per_instance",
            f"{_HOSTING}autoscaling.scale_in_cooldown_seconds",
            f"{_HOSTING}autoscaling.scale_out_cooldown_seconds",
            f"{_HOSTING}asynchronous.backlog_per_instance",
        ),
    ),
    _Unread(
        "while sagemaker.hosting.kind is 'asynchronous': backlog_per_instance is aimed at",
        lambda config: config.sagemaker.hosting.kind == "asynchronous",
        (f"{_HOSTING}autoscaling.invocations_per_instance",),
    ),
    _Unread(
        "while sagemaker.hosting.rollout.strategy is 'all_at_once'",
        lambda config: config.sagemaker.hosting.rollout.strategy == "all_at_once",
        (f"{_HOSTING}rollout.step_percent", f"{_HOSTING}rollout.wait_seconds"),
    ),
)

_BY_STACK = {"local": _LOCAL, "rehearsal": _MANAGED, "sagemaker": (*_MANAGED, *_IN_THE_IMAGE)}
