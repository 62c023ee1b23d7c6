"""How ZenML runs the pipeline on a remote stack: in one job, from one image.

The job finds what it needs to know of the account in its environment, see
darkroom/backends/sagemaker/session.py.
"""

import logging
import os
from typing import Any

from zenml.config import DockerSettings
from zenml.integrations.aws.flavors.sagemaker_orchestrator_flavor import (
    SagemakerOrchestratorSettings,
)

from darkroom.backends.sagemaker.requests import volume_key
from darkroom.config.sagemaker import SageMakerConfig
from stacks.environment import CHECKOUT, SETTINGS

_HANDED_ON = (
    "AWS_REGION",
    "DARKROOM_ROLE_ARN",
    "DARKROOM_ENDPOINT_ROLE_ARN",
    "DARKROOM_S3_ROOT",
    "DARKROOM_IMAGE",
)
_WORKSPACE = "/tmp/darkroom"  # noqa: S108 - of the container, which has it to itself


def remote_options(config: SageMakerConfig, *, run: str) -> dict[str, Any]:
    """Options of the pipeline's `with_options`: settings of image and job, and environment.

    Args:
        config: of the orchestrating job, its network and tags.
        run: name of the pipeline run.
    """
    # The SDK tells of each of its settings on standard output.
    logging.getLogger("sagemaker.config").setLevel(logging.WARNING)
    orchestration, network = config.orchestration, config.network
    arguments: dict[str, Any] = {
        # The SDK would turn on a debugger and a profiler that are closed to new customers.
        "disable_profiler": True,
        "debugger_hook_config": False,
    }
    if network.subnets:
        arguments["subnets"] = list(network.subnets)
        arguments["security_group_ids"] = list(network.security_group_ids)
    if config.kms_key:
        arguments["output_kms_key"] = config.kms_key
    if key := volume_key(orchestration.instance_type, key=config.kms_key):
        arguments["volume_kms_key"] = key
    orchestrator = SagemakerOrchestratorSettings(
        # Not awaited by ZenML, which gives up after 50 minutes and says little.
        synchronous=False,
        instance_type=orchestration.instance_type,
        volume_size_in_gb=orchestration.volume_gb,
        max_runtime_in_seconds=orchestration.max_runtime_seconds,
        # A warm pool by default would need a quota that new accounts have not.
        keep_alive_period_in_seconds=None,
        output_data_s3_uri=f"{os.environ['DARKROOM_S3_ROOT']}/orchestration",
        tags={**config.tags, "darkroom:run": run, "darkroom:kind": "orchestration"},
        estimator_args=arguments,
    )
    return {
        "settings": {"docker": _image(), "orchestrator": orchestrator},
        # Not the orchestrator's setting of that name, which dynamic pipelines ignore.
        "environment": _environment(),
    }


def _environment() -> dict[str, str]:
    given = {name: os.environ[name] for name in _HANDED_ON if os.environ.get(name)}
    return {**SETTINGS, **given, "DARKROOM_HOME": _WORKSPACE}


def _image() -> DockerSettings:
    """The user's own image as it is, or one that ZenML builds from our Dockerfile."""
    if image := os.environ.get("DARKROOM_IMAGE"):
        return DockerSettings(parent_image=image, skip_build=True)
    return DockerSettings(
        dockerfile=str(CHECKOUT / "infrastructure" / "Dockerfile"),
        build_context_root=str(CHECKOUT),
        # The Dockerfile installs all of it, at the locked versions.
        install_stack_requirements=False,
        install_deployment_requirements=False,
    )
