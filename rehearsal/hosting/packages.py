"""Models of the registry as containers: ModelPackageName instead of an image and data."""

from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError

from rehearsal.emulator.errors import invalid
from rehearsal.emulator.state import State

_FIELDS = ("Image", "ModelDataUrl", "ModelDataSource", "Environment", "ContainerHostname")


def container_of_package(definition: Mapping[str, Any], *, state: State) -> Mapping[str, Any]:
    """The definition with the package's image and data in it; unchanged without a package.

    Raises AwsError where there is no such package.
    """
    package = definition.get("ModelPackageName")
    if package is None:
        return definition
    try:
        described = state.clients["sagemaker"].describe_model_package(ModelPackageName=package)
    except ClientError as error:
        raise invalid(f"Could not find model package {package!r}: {error}") from error
    containers = described.get("InferenceSpecification", {}).get("Containers", [])
    if not containers:
        raise invalid(f"Model package {package!r} has no InferenceSpecification.")
    given = {name: containers[0][name] for name in _FIELDS if name in containers[0]}
    environment = {**given.get("Environment", {}), **definition.get("Environment", {})}
    return {**given, **definition, "Environment": environment}
