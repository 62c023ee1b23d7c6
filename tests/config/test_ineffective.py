"""Each setting changes what is sent or trained with, or is said to have no effect."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest

from commands.settings import settings_to_train
from darkroom.backends.sagemaker.account import preflight as preflight_requests
from darkroom.backends.sagemaker.hosting import request
from darkroom.backends.sagemaker.hosting.resources import HostingNames
from darkroom.backends.sagemaker.resources import tags_of
from darkroom.backends.sagemaker.session import SageMakerContext
from darkroom.backends.sagemaker.transform import transform_request
from darkroom.config import Config
from darkroom.config.consistency import ineffective_settings
from darkroom.config.loader import load_config
from darkroom.config.sections import Section
from pictures import write_image_folder

SECTIONS = ("training", "tuning", "recording", "diagnosis", "deployment", "batch", "sagemaker")
REALTIME: dict[str, Any] = {
    "training": {"optimizer": "sgd"},
    "batch": {"split": "test"},
    "sagemaker": {
        "training": {"spot": True, "instance_count": 2},
        "tuning": {"warm_start_from": ["earlier"]},
        "hosting": {
            "autoscaling": {"max_instances": 4},
            "rollout": {"strategy": "canary", "max_latency_ms": 100},
        },
    },
}
QUEUE = {
    **REALTIME,
    "sagemaker": {
        "hosting": {"kind": "asynchronous", "autoscaling": {"min_instances": 0, "max_instances": 4}}
    },
}
SERVERLESS = {"sagemaker": {"hosting": {"kind": "serverless"}}}
OTHERS: dict[str, Any] = {
    "tuning.direction": "minimize",
    "tuning.target_value": 0.5,
    "tuning.search_space.learning_rate": None,
    "tuning.search_space.batch_size": None,
    "tuning.search_space.weight_decay": None,
    "tuning.search_space.epochs": None,
    "diagnosis.rules": {"overfit": {"enabled": False}},
    "diagnosis.custom": [{"function": "rules.py:one"}],
    "sagemaker.training.max_wait_seconds": 200_000,
    "sagemaker.training.keep_alive_seconds": 60,
    "sagemaker.tuning.warm_start_from": ["another"],
    "sagemaker.hosting.asynchronous.success_topic": "arn:aws:sns:eu-west-1:123456789012:done",
    "sagemaker.hosting.asynchronous.error_topic": "arn:aws:sns:eu-west-1:123456789012:failed",
    "sagemaker.network.subnets": ["subnet-1"],
    "sagemaker.network.security_group_ids": ["sg-1"],
    "sagemaker.environment": {"A": "b"},
    "sagemaker.tags": {"a": "b"},
}
"""Values of which no other follows from the type."""
ELSEWHERE = {
    "training.processes": "sent, and tested with the instances in test_config_loading",
    "tuning.enabled": "pipelines/training.py",
    "tuning.pruning_warmup_trials": "darkroom/tuning/search.py; announced for SageMaker",
    "diagnosis.enabled": "pipelines/training.py",
    "deployment.enabled": "pipelines/training.py",
    "deployment.gate_metric": "darkroom/evaluation/evaluate.py",
    "deployment.gate_threshold": "darkroom/evaluation/evaluate.py",
    "deployment.check_images": "steps/predict.py",
    "deployment.tolerance": "steps/predict.py",
    "batch.split": "pipelines/training.py",
    "sagemaker.orchestration.instance_type": "stacks/orchestration.py",
    "sagemaker.orchestration.volume_gb": "stacks/orchestration.py",
    "sagemaker.orchestration.max_runtime_seconds": "stacks/orchestration.py",
    "sagemaker.hosting.name": "test_sagemaker_hosting_requests",
    "sagemaker.hosting.time_to_live_hours": "test_sagemaker_hosting",
    "sagemaker.hosting.approve": "test_sagemaker_registry",
    "sagemaker.hosting.multi_model.cache": "golden create_model_several_uncached",
}
"""Read where no request shows it: by whom, or which test says so."""


def leaves(section: type[Section], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, field in section.model_fields.items():
        key, kind = f"{prefix}.{name}", field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            yield from leaves(kind, key)
        else:
            yield key, kind


KEYS = dict(
    leaf
    for name in SECTIONS
    for leaf in leaves(Config.model_fields[name].annotation, name)  # type: ignore[arg-type]
)


def value_at(config: Config, key: str) -> Any:
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return value


def changed(base: dict[str, Any], key: str) -> Config:
    """The configuration with another value for one key."""
    config = Config.model_validate(base)
    content = config.model_dump(mode="json")
    section: Any = content
    *path, name = key.split(".")
    for part in path:
        section = section[part]
    section[name] = OTHERS[key] if key in OTHERS else another(value_at(config, key), KEYS[key])
    if name in ("subnets", "security_group_ids"):
        section["subnets"] = section["subnets"] or ["subnet-0"]
        section["security_group_ids"] = section["security_group_ids"] or ["sg-0"]
    if name == "keep_alive_seconds":
        section["spot"] = False
    if name == "distribution":
        section["instance_count"] = 2
    return Config.model_validate(content)


def another(value: Any, kind: Any) -> Any:
    if get_origin(kind) is Literal:
        return next(choice for choice in get_args(kind) if choice != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value * 0.5 or 0.25
    return {"ml.m5.xlarge": "ml.m5.4xlarge", "ml.m5.large": "ml.c5.large"}.get(value, "other")


def sent(config: Config) -> list[Any]:
    """What a run sends to SageMaker, its own job left out."""
    site = SageMakerContext(
        region="eu-west-1",
        role="arn:aws:iam::123456789012:role/jobs",
        image="123456789012.dkr.ecr.eu-west-1.amazonaws.com/darkroom:1",
        root="s3://bucket/prefix",
        config=config.sagemaker,
        run="run-1",
    )
    settings = config.sagemaker.hosting
    names = HostingNames("pets", "pets-m", "pets-c")
    built = [build() for _, build in preflight_requests._requests(site, config=config)]
    built.append(request.update_request("pets", configuration="pets-d", hosting=settings))
    built += request.alarm_requests("pets", rollout=settings.rollout, tags=tags_of(site))
    if settings.scales:
        built.append(request.target_request("pets", scaling=settings.autoscaling))
        built.append(request.policy_request("pets", hosting=settings))
    if config.batch.split != "none":
        built.append(
            transform_request(
                "t", model=names.model, images="s3://b/i", output="s3://b/o", site=site, tags=[]
            )
        )
    return built


def base_for(key: str) -> dict[str, Any]:
    """A configuration in which a setting should have its effect."""
    if ".serverless." in key:
        return SERVERLESS
    if key == "sagemaker.hosting.kind":
        return {}
    if key.startswith("training."):
        return {**REALTIME, "tuning": {"enabled": False}}
    return QUEUE if ".asynchronous." in key else REALTIME


@pytest.mark.parametrize("key", sorted(KEYS.keys() - ELSEWHERE.keys()))
def test_each_setting_reaches_a_request(key: str) -> None:
    base = base_for(key)
    with_it = changed(base, key)
    assert value_at(with_it, key) != value_at(Config.model_validate(base), key)
    assert sent(with_it) != sent(Config.model_validate(base))
    assert not any(key in line for line in ineffective_settings(with_it, stack="sagemaker"))


def test_what_no_request_shows_is_a_setting_of_now() -> None:
    assert ELSEWHERE.keys() < KEYS.keys()


@pytest.mark.parametrize(
    ("overrides", "stack", "line"),
    [
        (
            ["sagemaker.training.spot=true", "sagemaker.hosting.kind=serverless"],
            "local",
            "no effect on --stack local: sagemaker.training.spot, sagemaker.hosting.kind",
        ),
        (
            ["tuning.enabled=false", "tuning.trials=9"],
            "local",
            "no effect while tuning.enabled is false: tuning.trials",
        ),
        (
            ["tuning.pruning_warmup_trials=3"],
            "sagemaker",
            "no effect on --stack sagemaker, where SageMaker's own early stopping decides: "
            "tuning.pruning_warmup_trials",
        ),
        (
            ["training.epochs=50"],
            "local",
            "no effect: training.epochs (50), since tuning.search_space.epochs decides (3 to 10); "
            "set that to null to train with training.epochs",
        ),
        (
            ["training.batch_size=48"],
            "rehearsal",
            "no effect: training.batch_size (48), since tuning.search_space.batch_size decides "
            "(16, 32, 64); set that to null to train with training.batch_size",
        ),
        (
            ["training.momentum=0.5"],
            "local",
            "no effect while training.optimizer is not 'sgd': training.momentum",
        ),
        (
            ["recording.backend=off", "recording.tensors=full", "diagnosis.live=false"],
            "local",
            "no effect while recording.backend is 'off': recording.tensors, diagnosis.live",
        ),
        (
            ["deployment.enabled=false", "batch.split=test"],
            "local",
            "no effect while deployment.enabled is false: batch.split",
        ),
        (
            ["sagemaker.hosting.kind=serverless", "deployment.start_timeout_seconds=90"],
            "sagemaker",
            "no effect while sagemaker.hosting.kind is 'serverless': "
            "deployment.start_timeout_seconds",
        ),
        (
            ["sagemaker.hosting.autoscaling.invocations_per_instance=9"],
            "sagemaker",
            "no effect while autoscaling.max_instances is not above min_instances: "
            "sagemaker.hosting.autoscaling.invocations_per_instance",
        ),
        (
            ["compilation.enabled=true", "compilation.tvm=true"],
            "sagemaker",
            "no effect on --stack sagemaker, whose image has no TVM: compilation.tvm",
        ),
    ],
)
def test_settings_that_nothing_reads_are_named(overrides: list[str], stack: str, line: str) -> None:
    assert ineffective_settings(load_config(None, overrides=overrides), stack=stack) == [line]


@pytest.mark.parametrize("stack", ["local", "rehearsal", "sagemaker"])
def test_the_defaults_are_not_spoken_of(stack: str) -> None:
    assert ineffective_settings(Config(), stack=stack) == []


def test_what_nobody_set_is_not_spoken_of(tmp_path: Path) -> None:
    write_image_folder(tmp_path / "pets", per_class=10)
    for data in (None, str(tmp_path / "pets")):
        settings = settings_to_train(
            config=None,
            data=data,
            overrides=["tuning.enabled=false", "tuning.trials=3", "model.weights=none"],
            stack="local",
        )
        told = ineffective_settings(settings.config, stack="local", chosen=settings.chosen)
        assert told == ["no effect while tuning.enabled is false: tuning.trials"]
