"""Rules of processing and transform jobs."""

from collections.abc import Iterator, Mapping
from typing import Any

from darkroom.backends.sagemaker.rules.members import repeated
from darkroom.backends.sagemaker.rules.problem import RuleProblem

_LARGEST_PAYLOAD_MB = 100
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
    if payload and payload * (concurrent or 1) > _LARGEST_PAYLOAD_MB:
        yield RuleProblem(
            f"MaxPayloadInMB ({payload}) times MaxConcurrentTransforms ({concurrent or 1}) must "
            f"not be more than {_LARGEST_PAYLOAD_MB}"
        )
    if strategy == "MultiRecord" and split == "None":
        yield RuleProblem("BatchStrategy MultiRecord needs a SplitType other than None")
