"""What happens around the components of a run: before the first, and when one fails."""

import logging

from darkroom.backends.sagemaker.orchestrated import (
    announce_components,
    is_orchestrating,
    leave_reason,
)

_NOISY = ("zenml", "mlflow", "botocore", "sagemaker", "s3fs", "aiobotocore", "matplotlib")


def begin() -> None:
    """Let the log of the orchestrating job hold what the components say, and little else.

    There, ZenML and MLflow are imported before any environment variable of ours is set. On the
    command line they say nothing: an error is told there once, by us.
    """
    level = logging.ERROR if is_orchestrating() else logging.CRITICAL
    for name in _NOISY:
        logging.getLogger(name).setLevel(level)
    announce_components()


def tell_why(exception: BaseException) -> None:
    """Leave the reason where whoever follows the orchestrating job reads it."""
    leave_reason(exception)
