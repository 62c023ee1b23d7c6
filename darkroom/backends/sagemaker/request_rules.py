"""Rules of SageMaker's API that its service model does not tell.

The model (botocore's) knows which members a request has, their types, patterns and bounds.
Here is what AWS refuses beyond that, where members have to agree with each other. Pure: no
account is asked, nothing is imported from AWS's SDKs. `run.py check` and the rehearsal use
the same rules. What depends on what exists already (names in use, missing buckets) is not
here.

Source: SageMaker's API reference and developer guide, as noted at each rule.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from darkroom.backends.sagemaker.hosting import rules as hosting_rules
from darkroom.backends.sagemaker.requests import RuleProblem, repeated, roles_of, tags_of, uris_of
from darkroom.backends.sagemaker.training import rules as training_rules
from darkroom.backends.sagemaker.tuning import rules as tuning_rules

__all__ = ["RuleProblem", "problems"]


# --- processing and transform jobs ---
# Rules of processing and transform jobs.

_MAX_PAYLOAD_MB = 100
"""CreateTransformJob: MaxPayloadInMB may not exceed 100; times the concurrency likewise."""
Problems = Iterator[RuleProblem]


def processing_job(request: Mapping[str, Any]) -> Problems:
    """Inputs and outputs have names of their own."""
    inputs = request.get("ProcessingInputs", ())
    for name in repeated(i.get("InputName") for i in inputs):
        yield RuleProblem(f"ProcessingInputs: the InputName {name!r} is there twice")
    outputs = request.get("ProcessingOutputConfig", {}).get("Outputs", ())
    for name in repeated(o.get("OutputName") for o in outputs):
        yield RuleProblem(f"ProcessingOutputConfig: the OutputName {name!r} is there twice")
    places = [i.get("S3Input", {}).get("LocalPath") for i in inputs]
    for place in repeated(p for p in places if p):
        yield RuleProblem(f"ProcessingInputs: two inputs have the LocalPath {place!r}")


def transform_job(request: Mapping[str, Any]) -> Problems:
    """Payload, concurrency and the way of splitting agree."""
    payload, concurrent = request.get("MaxPayloadInMB", 6), request.get("MaxConcurrentTransforms")
    strategy = request.get("BatchStrategy")
    split = request.get("TransformInput", {}).get("SplitType", "None")
    if payload and payload * (concurrent or 1) > _MAX_PAYLOAD_MB:
        yield RuleProblem(
            f"MaxPayloadInMB ({payload}) times MaxConcurrentTransforms ({concurrent or 1}) must "
            f"not be more than {_MAX_PAYLOAD_MB}"
        )
    if strategy == "MultiRecord" and split == "None":
        yield RuleProblem("BatchStrategy MultiRecord needs a SplitType other than None")


# --- by kind of request ---

_Rule = Callable[[Mapping[str, Any]], Iterator[RuleProblem]]

_EVERYWHERE: tuple[_Rule, ...] = (tags_of, roles_of, uris_of)
_RULES: dict[str, _Rule] = {
    "CreateTrainingJob": training_rules.training_job,
    "CreateHyperParameterTuningJob": tuning_rules.tuning_job,
    "CreateProcessingJob": processing_job,
    "CreateTransformJob": transform_job,
    "CreateModel": hosting_rules.model,
    "CreateEndpointConfig": hosting_rules.endpoint_config,
    "CreateEndpoint": hosting_rules.deployment,
    "UpdateEndpoint": hosting_rules.deployment,
}


def problems(operation: str, request: Mapping[str, Any]) -> list[RuleProblem]:
    """What AWS would refuse in a request that its service model allows.

    Args:
        operation: such as "CreateTrainingJob"; where there are no rules, nothing is found.
        request: as for boto3.
    """
    found = [problem for rule in _EVERYWHERE for problem in rule(request)]
    if rule := _RULES.get(operation):
        found += rule(request)
    return found
