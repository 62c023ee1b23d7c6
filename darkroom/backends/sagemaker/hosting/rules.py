"""Rules of models, endpoint configurations and deployments.

https://docs.aws.amazon.com/sagemaker/latest/dg/serverless-endpoints.html (what they exclude)
https://docs.aws.amazon.com/sagemaker/latest/dg/deployment-guardrails.html (steps)
https://docs.aws.amazon.com/sagemaker/latest/dg/async-inference.html
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from darkroom.backends.sagemaker.requests import RuleProblem, repeated, vpc_problems

_MEGABYTES_STEP = 1024
_MAX_CANARY = 50
_LINEAR_STEPS = (10, 50)
_ROLLING_STEPS = (5, 50)
Problems = Iterator[RuleProblem]


def model(request: Mapping[str, Any]) -> Problems:
    """A model is one container, or several."""
    primary, several = request.get("PrimaryContainer"), request.get("Containers")
    if bool(primary) == bool(several):
        yield RuleProblem("CreateModel needs either PrimaryContainer or Containers")
    containers = [primary] if primary else several or []
    names = [c["ContainerHostname"] for c in containers if "ContainerHostname" in c]
    for name in repeated(names):
        yield RuleProblem(f"Containers: the ContainerHostname {name!r} is there twice")
    mode = request.get("InferenceExecutionConfig", {}).get("Mode")
    if mode == "Direct" and len(names) < len(containers):
        yield RuleProblem("InferenceExecutionConfig Direct: each container needs ContainerHostname")
    for container in containers:
        yield from _container(container)
    yield from vpc_problems(request)


def _container(container: Mapping[str, Any]) -> Problems:
    if not container.get("Image") and not container.get("ModelPackageName"):
        yield RuleProblem("a container needs an Image or a ModelPackageName")
    if container.get("ModelDataUrl") and container.get("ModelDataSource"):
        yield RuleProblem("a container has either ModelDataUrl or ModelDataSource")
    url = container.get("ModelDataUrl", "")
    many = container.get("Mode") == "MultiModel"
    if many and not url and not container.get("ModelDataSource"):
        yield RuleProblem("Mode MultiModel needs ModelDataUrl: the prefix of the archives")
    if container.get("MultiModelConfig") and not many:
        yield RuleProblem("MultiModelConfig needs Mode MultiModel")
    if many and url.endswith(".tar.gz"):
        yield RuleProblem(f"Mode MultiModel: ModelDataUrl {url!r} must be a prefix, no archive")
    if url and not many and not url.endswith(".tar.gz"):
        yield RuleProblem(f"ModelDataUrl {url!r} must be a single archive that ends in .tar.gz")


def endpoint_config(request: Mapping[str, Any]) -> Problems:
    """Variants have names of their own; serverless ones exclude much."""
    variants = request.get("ProductionVariants", ())
    everything = [*variants, *request.get("ShadowProductionVariants", ())]
    for name in repeated(variant.get("VariantName") for variant in everything):
        yield RuleProblem(f"ProductionVariants: the VariantName {name!r} is there twice")
    for variant in everything:
        yield from _variant(variant)
    weights = [variant.get("InitialVariantWeight", 1) for variant in variants]
    if weights and not any(weights):
        yield RuleProblem("ProductionVariants: at least one InitialVariantWeight must be above 0")
    if any("ServerlessConfig" in variant for variant in everything):
        yield from _serverless(request, everything)
    if "AsyncInferenceConfig" in request:
        yield from _asynchronous(request)


def _variant(variant: Mapping[str, Any]) -> Problems:
    name, serverless = variant.get("VariantName"), variant.get("ServerlessConfig")
    machines = [m for m in ("InstanceType", "InitialInstanceCount") if m in variant]
    if serverless is None:
        if len(machines) < 2 and "ManagedInstanceScaling" not in variant:
            yield RuleProblem(
                f"the variant {name!r} needs InstanceType and InitialInstanceCount, or "
                "ServerlessConfig"
            )
        return
    if machines:
        yield RuleProblem(f"the serverless variant {name!r} takes no {' and no '.join(machines)}")
    memory = serverless.get("MemorySizeInMB", _MEGABYTES_STEP)
    if memory % _MEGABYTES_STEP:
        yield RuleProblem(
            f"the serverless variant {name!r}: MemorySizeInMB {memory} must be 1024, 2048, 3072, "
            "4096, 5120 or 6144"
        )
    most = serverless.get("MaxConcurrency", 0)
    if serverless.get("ProvisionedConcurrency", 0) > most:
        yield RuleProblem(f"{name!r}: ProvisionedConcurrency is more than MaxConcurrency ({most})")


def _serverless(request: Mapping[str, Any], variants: Sequence[Mapping[str, Any]]) -> Problems:
    if len(variants) > 1:
        yield RuleProblem("a serverless endpoint has one variant")
    if request.get("DataCaptureConfig", {}).get("EnableCapture"):
        yield RuleProblem("a serverless endpoint takes no DataCaptureConfig")
    for member in ("VpcConfig", "AsyncInferenceConfig", "ExplainerConfig"):
        if request.get(member):
            yield RuleProblem(f"a serverless endpoint takes no {member}")


def _asynchronous(request: Mapping[str, Any]) -> Problems:
    output = request["AsyncInferenceConfig"].get("OutputConfig", {})
    if not output.get("S3OutputPath"):
        yield RuleProblem("AsyncInferenceConfig: OutputConfig needs S3OutputPath, for the answers")
    topics = output.get("NotificationConfig", {})
    for named in topics.get("IncludeInferenceResponseIn", ()):
        topic = "SuccessTopic" if named == "SUCCESS_NOTIFICATION_TOPIC" else "ErrorTopic"
        if not topics.get(topic):
            yield RuleProblem(f"IncludeInferenceResponseIn: {named} needs {topic}")
    if request.get("ShadowProductionVariants"):
        yield RuleProblem("an asynchronous endpoint takes no ShadowProductionVariants")


def deployment(request: Mapping[str, Any]) -> Problems:
    """How an update moves traffic: sizes of the steps, one policy."""
    config = request.get("DeploymentConfig") or {}
    blue_green, rolling = config.get("BlueGreenUpdatePolicy"), config.get("RollingUpdatePolicy")
    if blue_green and rolling:
        yield RuleProblem(
            "DeploymentConfig: BlueGreenUpdatePolicy and RollingUpdatePolicy exclude each other"
        )
    if blue_green:
        yield from _routing(blue_green.get("TrafficRoutingConfiguration", {}))
    if rolling:
        yield from _step(rolling, member="MaximumBatchSize", allowed=_ROLLING_STEPS)
    alarms = config.get("AutoRollbackConfiguration", {}).get("Alarms", ())
    for name in repeated(alarm.get("AlarmName") for alarm in alarms):
        yield RuleProblem(f"AutoRollbackConfiguration: the alarm {name!r} is there twice")


def _routing(routing: Mapping[str, Any]) -> Problems:
    kind = routing.get("Type")
    members = {"CANARY": "CanarySize", "LINEAR": "LinearStepSize"}
    for wanted, member in members.items():
        if kind == wanted and member not in routing:
            yield RuleProblem(f"TrafficRoutingConfiguration: {kind} needs {member}")
        if kind != wanted and member in routing:
            yield RuleProblem(f"TrafficRoutingConfiguration: {kind} takes no {member}")
    if kind == "CANARY":
        yield from _step(routing, member="CanarySize", allowed=(1, _MAX_CANARY))
    if kind == "LINEAR":
        yield from _step(routing, member="LinearStepSize", allowed=_LINEAR_STEPS)


def _step(holder: Mapping[str, Any], *, member: str, allowed: tuple[int, int]) -> Problems:
    size = holder.get(member, {})
    if size.get("Type") != "CAPACITY_PERCENT":
        return
    low, high = allowed
    if not low <= size.get("Value", low) <= high:
        yield RuleProblem(
            f"{member} of {size['Value']} % must be from {low} to {high} % of the capacity"
        )
