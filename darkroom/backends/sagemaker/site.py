"""Where managed jobs run, and under whose permissions."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from darkroom.config.sagemaker import SageMakerConfig
from darkroom.errors import UserError

_REQUIRED = ("AWS_REGION", "DARKROOM_ROLE_ARN", "DARKROOM_S3_ROOT")


@dataclass(frozen=True)
class Site:
    """What every request to SageMaker needs to know of the account."""

    region: str
    role: str
    """ARN of the execution role of training and tuning jobs."""
    image: str
    """URI of the image that holds darkroom: it trains, tunes and hosts."""
    root: str
    """s3://bucket/prefix below which everything lies; no slash at its end."""
    config: SageMakerConfig = field(default_factory=SageMakerConfig)
    endpoint_role: str = ""
    """ARN of the role of endpoints and batch transforms, which may do less; empty: `role`."""
    run: str = ""
    """Name of the pipeline run, a tag of all that it creates."""
    fresh: str = ""
    """Part of every job's identity where results of earlier runs are not to be reused."""

    def uri(self, *parts: str) -> str:
        """A place below the root: `site.uri("models", version)`."""
        return "/".join((self.root.rstrip("/"), *parts))

    @property
    def hosting_role(self) -> str:
        """ARN of the role that endpoints and batch transforms run under: that of their model."""
        return self.endpoint_role or self.role


def site_of_environment(
    config: SageMakerConfig,
    *,
    run: str = "",
    fresh: str = "",
    environment: Mapping[str, str] = os.environ,
) -> Site:
    """The site that the environment names, as stacks/values.py and the orchestrating job set it.

    Raises:
        UserError: naming every variable that is missing.
    """
    missing = [name for name in _REQUIRED if not environment.get(name)]
    if missing:
        raise UserError(
            [f"{name} is not set: docs/sagemaker.md says what it has to be" for name in missing]
        )
    return Site(
        region=environment["AWS_REGION"],
        role=environment["DARKROOM_ROLE_ARN"],
        image=environment.get("DARKROOM_IMAGE", ""),
        root=environment["DARKROOM_S3_ROOT"],
        config=config,
        endpoint_role=environment.get("DARKROOM_ENDPOINT_ROLE_ARN", ""),
        run=run,
        fresh=fresh,
    )
