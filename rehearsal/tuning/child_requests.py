"""The training job that a tuning job starts: its definition, with values filled in."""

import uuid
from collections.abc import Mapping
from typing import Any

from rehearsal.tuning.space import Values

OBJECTIVE_HYPERPARAMETER = "_tuning_objective_metric"
"""Tells the container what is sought; SageMaker adds it to every job of a tuning."""

_COPIED = (
    "RoleArn",
    "InputDataConfig",
    "VpcConfig",
    "OutputDataConfig",
    "StoppingCondition",
    "EnableNetworkIsolation",
    "EnableInterContainerTrafficEncryption",
    "EnableManagedSpotTraining",
    "RetryStrategy",
    "Environment",
)
_NAME_LENGTH = 32
"""Names of tuning jobs are at most 32 characters, so that children's fit into 63."""


def child_name(tuning: str, *, number: int) -> str:
    """Such as `digits-001-1f0c3a9e`."""
    return f"{tuning[:_NAME_LENGTH]}-{number:03d}-{uuid.uuid4().hex[:8]}"


def child_request(
    definition: Mapping[str, Any], *, name: str, tuned: Values, objective: str
) -> dict[str, Any]:
    """A CreateTrainingJob request.

    Args:
        definition: TrainingJobDefinition; its machines may be given as ResourceConfig or as
            HyperParameterTuningResourceConfig.
        tuned: the values to try; they win over StaticHyperParameters.
        objective: name of the objective metric.
    """
    request = {key: definition[key] for key in _COPIED if key in definition}
    static = definition.get("StaticHyperParameters", {})
    request |= {
        "TrainingJobName": name,
        "AlgorithmSpecification": definition["AlgorithmSpecification"],
        "HyperParameters": {**static, **tuned, OBJECTIVE_HYPERPARAMETER: objective},
        "ResourceConfig": resources_of(definition),
    }
    if "CheckpointConfig" in definition:
        request["CheckpointConfig"] = _own_checkpoints(definition["CheckpointConfig"], name=name)
    return request


def resources_of(definition: Mapping[str, Any]) -> dict[str, Any]:
    """One instance group of a tuning's own form, in a training job's."""
    if "ResourceConfig" in definition:
        return dict(definition["ResourceConfig"])
    given = definition["HyperParameterTuningResourceConfig"]
    named = ("InstanceType", "InstanceCount", "VolumeSizeInGB", "VolumeKmsKeyId")
    resources = {name: given[name] for name in named if name in given}
    if given.get("InstanceConfigs"):
        # AWS takes the first type that it has; here there is always the first.
        resources |= given["InstanceConfigs"][0]
    return {"InstanceCount": 1, "VolumeSizeInGB": 30, **resources}


def _own_checkpoints(config: Mapping[str, str], *, name: str) -> dict[str, str]:
    """A place for each job, lest jobs go on from each other's checkpoints."""
    return {**config, "S3Uri": f"{config['S3Uri'].rstrip('/')}/{name}"}
