"""Rules of CreateTrainingJob; the definitions of a tuning's jobs share most of them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from darkroom.backends.sagemaker.requests import RuleProblem, repeated, vpc_problems

Problems = Iterator[RuleProblem]


def training_job(request: Mapping[str, Any]) -> Problems:
    """All rules of a training job."""
    specification = request.get("AlgorithmSpecification", {})
    yield from definition(request)
    yield from _algorithm(specification)
    yield from machines(request.get("ResourceConfig", {}), spot=_is_spot(request))
    yield from metrics(specification.get("MetricDefinitions", ()))
    if len(request.get("HyperParameters", {})) > 100:
        yield RuleProblem("HyperParameters: a training job may have 100")


def definition(request: Mapping[str, Any]) -> Problems:
    """What training jobs and definitions of a tuning's jobs have in common."""
    yield from stopping(request.get("StoppingCondition", {}), spot=_is_spot(request))
    yield from channels(
        request.get("InputDataConfig", ()),
        mode=request.get("AlgorithmSpecification", {}).get("TrainingInputMode", "File"),
    )
    yield from vpc_problems(request)


def stopping(condition: Mapping[str, Any], *, spot: bool) -> Problems:
    """Spot jobs say how long they wait, their run included.

    StoppingCondition: MaxWaitTimeInSeconds must be at least MaxRuntimeInSeconds.
    """
    runtime = condition.get("MaxRuntimeInSeconds", 86_400)
    wait = condition.get("MaxWaitTimeInSeconds")
    if spot and (wait is None or wait < runtime):
        yield RuleProblem(
            f"Invalid MaxWaitTimeInSeconds ({wait}). It must be present and be greater than or "
            f"equal to MaxRuntimeInSeconds ({runtime}) where EnableManagedSpotTraining is true"
        )
    if wait is not None and not spot:
        yield RuleProblem(
            "MaxWaitTimeInSeconds is only for managed spot training: set "
            "EnableManagedSpotTraining to true or leave it out"
        )


def machines(resources: Mapping[str, Any], *, spot: bool) -> Problems:
    """ResourceConfig names machines in one way, and no warm pool of spot machines."""
    groups = resources.get("InstanceGroups")
    if groups and ("InstanceType" in resources or "InstanceCount" in resources):
        yield RuleProblem("ResourceConfig: InstanceGroups exclude InstanceType and InstanceCount")
    if not groups and not (resources.get("InstanceType") and resources.get("InstanceCount")):
        yield RuleProblem(
            "ResourceConfig must have InstanceType and an InstanceCount of at least 1, or "
            "InstanceGroups"
        )
    if resources.get("KeepAlivePeriodInSeconds") and spot:
        yield RuleProblem(
            "KeepAlivePeriodInSeconds (a warm pool) cannot be used with managed spot training"
        )


def channels(given: Sequence[Mapping[str, Any]], *, mode: str) -> Problems:
    """Channels have names of their own, and modes that fit how the data are named."""
    for name in repeated(channel.get("ChannelName") for channel in given):
        yield RuleProblem(f"InputDataConfig: channel names must be unique, {name!r} is there twice")
    for channel in given:
        source = channel.get("DataSource", {}).get("S3DataSource", {})
        kind, own = source.get("S3DataType"), channel.get("InputMode", mode)
        name = channel.get("ChannelName")
        if own == "FastFile" and kind in ("ManifestFile", "AugmentedManifestFile"):
            yield RuleProblem(f"channel {name!r}: FastFile mode takes S3Prefix only, not {kind}")
        if kind == "AugmentedManifestFile" and own != "Pipe":
            yield RuleProblem(f"channel {name!r}: AugmentedManifestFile needs Pipe mode")
        if own == "FastFile" and channel.get("CompressionType", "None") != "None":
            yield RuleProblem(f"channel {name!r}: FastFile mode takes no CompressionType")
        if "AttributeNames" in source and kind != "AugmentedManifestFile":
            yield RuleProblem(f"channel {name!r}: AttributeNames need AugmentedManifestFile")


def metrics(definitions: Sequence[Mapping[str, str]]) -> Problems:
    """Metrics have names of their own and expressions that mean something."""
    for name in repeated(definition.get("Name") for definition in definitions):
        yield RuleProblem(f"MetricDefinitions: {name!r} is defined twice")
    for definition in definitions:
        expression = definition.get("Regex", "")
        try:
            re.compile(expression)
        except re.error as error:
            yield RuleProblem(
                f"MetricDefinitions: {expression!r} is no regular expression: {error}"
            )


def _algorithm(specification: Mapping[str, Any]) -> Problems:
    named = [name for name in ("TrainingImage", "AlgorithmName") if specification.get(name)]
    if len(named) != 1:
        yield RuleProblem(
            "AlgorithmSpecification must have either TrainingImage or AlgorithmName, not "
            f"{' and '.join(named) or 'neither'}"
        )


def _is_spot(request: Mapping[str, Any]) -> bool:
    return bool(request.get("EnableManagedSpotTraining"))
