"""What happens around the components of a run: before the first, and when one fails."""

import logging

from darkroom.backends.sagemaker.handover import announce_components, is_orchestrating, leave_reason
from steps.reuse import reuse_only_what_is_whole

_NOISY = ("zenml", "mlflow", "botocore", "sagemaker", "s3fs", "aiobotocore", "matplotlib")


def begin() -> None:
    """Look at earlier results before they are reused, and keep libraries quiet.

    The log of the orchestrating job holds what the components say, and little else: there, ZenML
    and MLflow are imported before any environment variable of ours is set. On the command line
    they say nothing: an error is told there once, by us.
    """
    level = logging.ERROR if is_orchestrating() else logging.CRITICAL
    for name in _NOISY:
        logging.getLogger(name).setLevel(level)
    reuse_only_what_is_whole()
    announce_components()


def tell_why(exception: BaseException) -> None:
    """Leave the reason where whoever follows the orchestrating job reads it."""
    leave_reason(exception)
