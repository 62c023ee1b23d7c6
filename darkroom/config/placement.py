"""Where a pipeline's heavy work runs, as its components are told."""

from darkroom.config.sagemaker import SageMakerConfig
from darkroom.config.sections import Section


class Placement(Section):
    """In this process, or in managed jobs."""

    jobs: SageMakerConfig | None = None
    """How managed jobs are configured; None: everything runs in this process."""
    fresh: str = ""
    """Not empty where nothing of earlier runs is to be reused: part of every job's name then."""
    fresh_since: float = 0.0
    """Seconds since the epoch: what is older in the workspace is not reused then."""
