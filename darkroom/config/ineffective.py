"""Settings that somebody made and nothing reads: on this stack, or beside these others.

A test changes each setting in turn, and finds it here or in what is sent and trained with.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from darkroom.config import Config
from darkroom.config.grid import dimensions
from darkroom.config.tuning import FloatChoices

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
