"""Whether SageMaker has the instance types, by the service model that botocore carries."""

from collections.abc import Sequence
from difflib import get_close_matches

from darkroom.backends.sagemaker.preflight.demand import Demand, Use
from darkroom.backends.sagemaker.preflight.findings import Finding
from darkroom.backends.sagemaker.preflight.service_model import service_model

_SUBJECT = "instance types"
_SHAPES: dict[Use, str] = {
    "training job": "TrainingInstanceType",
    "spot training job": "TrainingInstanceType",
    "training warm pool": "TrainingInstanceType",
    "endpoint": "ProductionVariantInstanceType",
    "transform job": "TransformInstanceType",
}


def check_instance_types(demands: Sequence[Demand]) -> list[Finding]:
    """The types that SageMaker does not have for that use, with the nearest that it has."""
    problems = [
        Finding(_SUBJECT, "problem", _unknown(demand))
        for demand in demands
        if demand.instance_type not in known_types(demand.use)
    ]
    if problems:
        return problems
    names = ", ".join(dict.fromkeys(demand.instance_type for demand in demands))
    return [Finding(_SUBJECT, "ok", f"SageMaker knows {names}.")]


def known_types(use: Use) -> frozenset[str]:
    """All instance types for a use, as of the installed botocore."""
    model = service_model("sagemaker")
    # botocore's shapes have `enum` only where they are strings, which its types do not say.
    return frozenset(getattr(model.shape_for(_SHAPES[use]), "enum", ()))


def _unknown(demand: Demand) -> str:
    near = get_close_matches(demand.instance_type, sorted(known_types(demand.use)), n=3)
    choice = f"Near it are {near}" if near else "Usual are 'ml.m5.xlarge' and 'ml.g5.xlarge'"
    return (
        f"{demand.setting}: {demand.instance_type!r} is no instance type for a {demand.use}. "
        f"{choice}."
    )
