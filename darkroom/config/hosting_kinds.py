"""What the kinds of endpoints exclude, by SageMaker's developer guide.

https://docs.aws.amazon.com/sagemaker/latest/dg/serverless-endpoints.html
https://docs.aws.amazon.com/sagemaker/latest/dg/async-inference.html
https://docs.aws.amazon.com/sagemaker/latest/dg/multi-model-support.html
(InvokeEndpointAsync has no TargetModel.)
"""

import re

from darkroom.config.sagemaker import SageMakerConfig

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
