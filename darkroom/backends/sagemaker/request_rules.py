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

from darkroom.backends.sagemaker.rules import hosting, jobs, training, tuning
from darkroom.backends.sagemaker.rules.members import roles_of, tags_of, uris_of
from darkroom.backends.sagemaker.rules.problem import RuleProblem

__all__ = ["RuleProblem", "problems"]

_Rule = Callable[[Mapping[str, Any]], Iterator[RuleProblem]]

_EVERYWHERE: tuple[_Rule, ...] = (tags_of, roles_of, uris_of)
_RULES: dict[str, _Rule] = {
    "CreateTrainingJob": training.training_job,
    "CreateHyperParameterTuningJob": tuning.tuning_job,
    "CreateProcessingJob": jobs.processing_job,
    "CreateTransformJob": jobs.transform_job,
    "CreateModel": hosting.model,
    "CreateEndpointConfig": hosting.endpoint_config,
    "CreateEndpoint": hosting.deployment,
    "UpdateEndpoint": hosting.deployment,
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
