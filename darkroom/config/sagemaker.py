"""What a configuration may say about managed jobs; the local stack ignores it.

Bounds are those of SageMaker's API, so that a mistake is found before anything is sent.
"""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, model_validator

from darkroom.config.sections import Section

# --- sagemaker ---

_HOUR = 3600
_DAY = 24 * _HOUR

InstanceType = Annotated[str, Field(pattern=r"^ml\.[a-z0-9-]+\.[a-z0-9]+$")]
Runtime = Annotated[int, Field(ge=1, le=28 * _DAY)]
EndpointKind = Literal["realtime", "serverless", "asynchronous"]
Topic = Annotated[
    str, Field(pattern=r"^(arn:aws[a-z-]*:sns:[a-z0-9-]*:[0-9]{12}:[a-zA-Z0-9_.-]+)?$")
]


def _usual_tags(tags: dict[str, str]) -> dict[str, str]:
    wrong = [name for name in tags if name.startswith(("aws:", "darkroom:"))]
    if wrong:
        raise ValueError(f"the tags {wrong} may not begin with 'aws:' or 'darkroom:'")
    return tags


Tags = Annotated[dict[str, str], AfterValidator(_usual_tags)]


class OrchestrationConfig(Section):
    """The one job that runs the pipeline: its light components run inside it."""

    instance_type: InstanceType = "ml.m5.xlarge"
    """What the light components need; the heavy work runs in jobs of its own."""
    volume_gb: Annotated[int, Field(ge=1, le=16384)] = 30
    """Size of its disk."""
    max_runtime_seconds: Runtime = _DAY
    """The pipeline is stopped after so long."""


class TrainingJobConfig(Section):
    """Training jobs, and those of a tuning."""

    instance_type: InstanceType = "ml.m5.xlarge"
    """Machine."""
    instance_count: Annotated[int, Field(ge=1, le=100)] = 1
    """Machines that train one model together."""
    volume_gb: Annotated[int, Field(ge=1, le=16384)] = 30
    """Size of each machine's disk."""
    max_runtime_seconds: Runtime = _DAY
    """A job is stopped after so long."""
    spot: bool = False
    """Use spare capacity: cheaper, interrupted at times, resumed from checkpoints."""
    max_wait_seconds: Annotated[int, Field(ge=0, le=28 * _DAY)] = 0
    """Longest wait for spot capacity, the run included; 0: twice max_runtime_seconds."""
    keep_alive_seconds: Annotated[int, Field(ge=0, le=6 * _HOUR)] = 0
    """Keep the machine for the next job, a warm pool; it is billed meanwhile."""
    input_mode: Literal["File", "FastFile"] = "File"
    """Copy the data before the start, or stream it while it is read."""
    distribution: Literal["FullyReplicated", "ShardedByS3Key"] = "FullyReplicated"
    """Every machine gets all training images, or a part of them."""
    managed_debugger: bool = False
    """Send AWS's own debugger and profiler configuration; closed to new customers."""

    @property
    def longest_wait_seconds(self) -> int:
        """Of a spot job, its run included."""
        return self.max_wait_seconds or min(2 * self.max_runtime_seconds, 28 * _DAY)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.spot and self.longest_wait_seconds < self.max_runtime_seconds:
            raise ValueError(
                f"max_wait_seconds ({self.max_wait_seconds}) must be 0 or at least "
                f"max_runtime_seconds ({self.max_runtime_seconds}) where spot is true"
            )
        if self.spot and self.keep_alive_seconds:
            raise ValueError("keep_alive_seconds must be 0 where spot is true: AWS refuses both")
        if self.distribution == "ShardedByS3Key" and self.instance_count == 1:
            raise ValueError("distribution ShardedByS3Key needs instance_count of at least 2")
        return self


class TuningJobConfig(Section):
    """Managed tuning, beyond what `tuning` says."""

    parallel_jobs: Annotated[int, Field(ge=1, le=100)] = 2
    """Training jobs of a tuning that run at once."""
    warm_start_from: Annotated[tuple[str, ...], Field(max_length=5)] = ()
    """Names of earlier tuning jobs whose results this one starts from."""
    warm_start_type: Literal["IdenticalDataAndAlgorithm", "TransferLearning"] = (
        "IdenticalDataAndAlgorithm"
    )
    """What the earlier tunings have in common with this one."""
    stop_when_converged: bool = False
    """Stop when SageMaker finds that no more improvement is likely."""


class AutoscalingConfig(Section):
    """How many instances an endpoint has."""

    min_instances: Annotated[int, Field(ge=0)] = 1
    """At least; 0, of asynchronous endpoints alone: none while nothing waits."""
    max_instances: Annotated[int, Field(ge=1)] = 1
    """At most; 1: no scaling."""
    invocations_per_instance: PositiveInt = 70
    """Requests a minute and instance that are aimed at; see also asynchronous."""
    scale_in_cooldown_seconds: Annotated[int, Field(ge=0)] = 300
    """Pause before instances are taken away."""
    scale_out_cooldown_seconds: Annotated[int, Field(ge=0)] = 60
    """Pause before more are added."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_instances < self.min_instances:
            raise ValueError(
                f"max_instances ({self.max_instances}) must be at least min_instances "
                f"({self.min_instances})"
            )
        return self


class ServerlessConfig(Section):
    """An endpoint without instances."""

    memory_mb: Literal[1024, 2048, 3072, 4096, 5120, 6144] = 2048
    """Memory of one copy."""
    max_concurrency: Annotated[int, Field(ge=1, le=200)] = 5
    """Requests at once."""
    provisioned_concurrency: Annotated[int, Field(ge=0, le=200)] = 0
    """Copies that are kept warm, and billed by the hour; 0: none."""

    @model_validator(mode="after")
    def _provisioned_of_all(self) -> Self:
        if self.provisioned_concurrency > self.max_concurrency:
            raise ValueError(
                f"provisioned_concurrency ({self.provisioned_concurrency}) must be at most "
                f"max_concurrency ({self.max_concurrency})"
            )
        return self


class AsynchronousConfig(Section):
    """An endpoint that reads its requests from S3, and leaves its answers there."""

    max_concurrent_invocations: Annotated[int, Field(ge=0, le=1000)] = 0
    """Requests that an instance is given at once; 0: as many as SageMaker thinks best."""
    backlog_per_instance: PositiveFloat = 5
    """Waiting requests for each instance that are aimed at where autoscaling scales."""
    success_topic: Topic = ""
    """ARN of an SNS topic that is told of each answer; empty: none."""
    error_topic: Topic = ""
    """ARN of an SNS topic that is told of each failure; empty: none."""


class MultiModelConfig(Section):
    """Several models behind one endpoint, as `run.py deploy` makes them."""

    cache: bool = True
    """Keep models in memory between requests; false helps where each is asked seldom."""


class RolloutConfig(Section):
    """How an endpoint that serves already is changed: blue/green."""

    strategy: Literal["all_at_once", "canary", "linear"] = "all_at_once"
    """Shift all traffic, first a small part, or part by part."""
    step_percent: Annotated[int, Field(ge=5, le=50)] = 10
    """Of the capacity: the canary, or each step (linear: 10 to 50)."""
    wait_seconds: Annotated[int, Field(ge=0, le=_HOUR)] = 300
    """Between steps, while the alarms are watched."""
    termination_wait_seconds: Annotated[int, Field(ge=0, le=_HOUR)] = 120
    """Before the old instances are ended."""
    max_5xx_percent: Annotated[float, Field(ge=0, le=100)] = 1
    """Alarm that rolls back: share of requests answered with an error of the server."""
    max_latency_ms: Annotated[float, Field(ge=0)] = 0
    """Alarm that rolls back: average model latency; 0: no such alarm."""

    @model_validator(mode="after")
    def _linear_steps(self) -> Self:
        if self.strategy == "linear" and self.step_percent < 10:
            raise ValueError(f"step_percent ({self.step_percent}) must be at least 10 for linear")
        return self


class HostingConfig(Section):
    """Endpoints."""

    name: Annotated[str, Field(pattern=r"^([a-zA-Z0-9](-*[a-zA-Z0-9]){0,62})?$")] = ""
    """Of the endpoint that --keep-endpoint leaves; empty: tracking.model_name."""
    kind: EndpointKind = "realtime"
    """Instances that answer at once, none while nobody asks, or a queue between files on S3."""
    instance_type: InstanceType = "ml.m5.large"
    """Machine; serverless endpoints have none."""
    autoscaling: AutoscalingConfig = AutoscalingConfig()
    """Number of instances; serverless endpoints scale by themselves."""
    serverless: ServerlessConfig = ServerlessConfig()
    """Where kind is serverless."""
    asynchronous: AsynchronousConfig = AsynchronousConfig()
    """Where kind is asynchronous."""
    multi_model: MultiModelConfig = MultiModelConfig()
    """Where several models are behind the endpoint."""
    rollout: RolloutConfig = RolloutConfig()
    """How a new model takes over."""
    capture_percent: Annotated[int, Field(ge=0, le=100)] = 0
    """Share of requests and answers that are stored on S3; 0: none."""
    time_to_live_hours: Annotated[float, Field(ge=0)] = 0
    """After so long `run.py down --expired` removes the endpoint; 0: never."""
    approve: bool = True
    """Register a model that passes the gate as approved; else, and false: PendingManualApproval."""

    @property
    def scales(self) -> bool:
        """Whether the number of instances changes by itself."""
        bounds = self.autoscaling
        return self.kind != "serverless" and bounds.max_instances > bounds.min_instances

    @model_validator(mode="after")
    def _limits_of_kinds(self) -> Self:
        problems = []
        if self.kind != "realtime" and self.capture_percent:
            problems.append(f"capture_percent must be 0: {self.kind} endpoints capture no data")
        if self.kind == "serverless" and self.autoscaling.max_instances > 1:
            problems.append("autoscaling.max_instances must be 1: serverless endpoints scale alone")
        if self.kind != "asynchronous" and self.autoscaling.min_instances == 0:
            problems.append(
                "autoscaling.min_instances must be at least 1: only asynchronous endpoints scale "
                "to zero"
            )
        if problems:
            raise ValueError("; ".join(problems))
        return self


class TransformConfig(Section):
    """Batch transform jobs."""

    instance_type: InstanceType = "ml.m5.large"
    """Machine."""
    instance_count: Annotated[int, Field(ge=1, le=100)] = 1
    """Machines."""
    concurrent_requests: Annotated[int, Field(ge=1, le=100)] = 4
    """Requests that a machine answers at once."""


class NetworkConfig(Section):
    """Where jobs and endpoints may reach to."""

    subnets: Annotated[tuple[str, ...], Field(max_length=16)] = ()
    """Subnets of a VPC; empty: no VPC."""
    security_group_ids: Annotated[tuple[str, ...], Field(max_length=5)] = ()
    """Security groups in it."""
    isolation: bool = False
    """Containers of training and hosting reach no network at all."""
    encrypt_traffic: bool = False
    """Encrypt what the machines of one job send each other."""

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if bool(self.subnets) != bool(self.security_group_ids):
            raise ValueError("subnets and security_group_ids need each other")
        return self


class SageMakerConfig(Section):
    """Managed jobs on the stacks sagemaker and rehearsal; the local stack ignores it."""

    orchestration: OrchestrationConfig = OrchestrationConfig()
    """The pipeline's own job."""
    training: TrainingJobConfig = TrainingJobConfig()
    """Training jobs."""
    tuning: TuningJobConfig = TuningJobConfig()
    """Tuning jobs."""
    hosting: HostingConfig = HostingConfig()
    """Endpoints."""
    transform: TransformConfig = TransformConfig()
    """Batch transform jobs."""
    network: NetworkConfig = NetworkConfig()
    """VPC and isolation."""
    kms_key: str = ""
    """Key that encrypts volumes and output; empty: the service's own."""
    environment: dict[str, str] = {}
    """Environment variables of training jobs; no secrets, since runs record them."""
    tags: Tags = {}
    """Tags of everything that is created."""


# --- hosting kinds ---
# What the kinds of endpoints exclude, by SageMaker's developer guide.
#
# https://docs.aws.amazon.com/sagemaker/latest/dg/serverless-endpoints.html
# https://docs.aws.amazon.com/sagemaker/latest/dg/async-inference.html
# https://docs.aws.amazon.com/sagemaker/latest/dg/multi-model-support.html
# (InvokeEndpointAsync has no TargetModel.)

_GPU_FAMILIES = re.compile(r"ml\.(?:p\d|g\d|inf\d|trn\d|dl\d)")


def kind_problems(config: SageMakerConfig) -> list[str]:
    """Problems, one line each, of an endpoint with one model."""
    network = config.network
    if config.hosting.kind == "serverless" and (network.subnets or network.isolation):
        return [
            "sagemaker.hosting.kind: 'serverless' allows neither sagemaker.network.subnets nor "
            "sagemaker.network.isolation; take 'realtime', or leave them out"
        ]
    return []


def several_models_problems(config: SageMakerConfig) -> list[str]:
    """Problems, one line each, of an endpoint with several models."""
    kind, machine = config.hosting.kind, config.hosting.instance_type
    problems = []
    if kind != "realtime":
        problems.append(
            f"sagemaker.hosting.kind: {kind!r} endpoints hold one model; several need 'realtime'"
        )
    elif _GPU_FAMILIES.match(machine):
        problems.append(
            f"sagemaker.hosting.instance_type: {machine!r} has an accelerator, which SageMaker "
            "shares between models through Triton alone; take a machine without, such as "
            "'ml.m5.large'"
        )
    return problems


# --- placement ---
# Where a pipeline's heavy work runs, as its components are told.


class Placement(Section):
    """In this process, or in managed jobs."""

    jobs: SageMakerConfig | None = None
    """How managed jobs are configured; None: everything runs in this process."""
    fresh: str = ""
    """Not empty where nothing of earlier runs is to be reused: part of every job's name then."""
    fresh_since: float = 0.0
    """Seconds since the epoch: what is older in the workspace is not reused then."""
