"""Which instances a run wants at once: what quotas and instance types are checked against."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from darkroom.config import Config
from darkroom.config.grid import trials_wanted

Use = Literal[
    "training job", "spot training job", "training warm pool", "endpoint", "transform job"
]
"""As Service Quotas words it: 'ml.m5.xlarge for endpoint usage'."""


@dataclass(frozen=True)
class Demand:
    """Instances of one type for one use."""

    instance_type: str
    use: Use
    count: int
    """At once, at most."""
    setting: str
    """Where the configuration says so."""

    @property
    def quota_name(self) -> str:
        """What Service Quotas calls it."""
        return f"{self.instance_type} for {self.use} usage"


def demands_of(config: Config) -> list[Demand]:
    """What a run wants at once, demands of one quota added up."""
    added: dict[str, Demand] = {}
    for demand in _demands(config):
        before = added.get(demand.quota_name)
        added[demand.quota_name] = Demand(
            instance_type=demand.instance_type,
            use=demand.use,
            count=demand.count + (before.count if before else 0),
            setting=f"{before.setting} and {demand.setting}" if before else demand.setting,
        )
    return list(added.values())


def _demands(config: Config) -> Iterator[Demand]:
    settings = config.sagemaker
    orchestration, training = settings.orchestration, settings.training
    yield Demand(
        orchestration.instance_type, "training job", 1, "sagemaker.orchestration.instance_type"
    )
    tuning = config.tuning
    parallel = min(settings.tuning.parallel_jobs, trials_wanted(tuning)) if tuning.enabled else 1
    at_once = training.instance_count * parallel
    use: Use = "spot training job" if training.spot else "training job"
    yield Demand(training.instance_type, use, at_once, "sagemaker.training.instance_type")
    if training.keep_alive_seconds:
        yield Demand(training.instance_type, "training warm pool", at_once, "sagemaker.training")
    if config.deployment.enabled:
        yield from _serving(config)


def _serving(config: Config) -> Iterator[Demand]:
    hosting, transform = config.sagemaker.hosting, config.sagemaker.transform
    if hosting.kind != "serverless":
        yield Demand(
            hosting.instance_type,
            "endpoint",
            max(1, hosting.autoscaling.min_instances),
            "sagemaker.hosting.instance_type",
        )
    if config.batch.split != "none":
        yield Demand(
            transform.instance_type,
            "transform job",
            transform.instance_count,
            "sagemaker.transform.instance_type",
        )
