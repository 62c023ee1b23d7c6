"""Why a job ended without a result, in words that say what to do."""

import re
from collections.abc import Sequence

from darkroom.errors import DarkroomError, UserError

_EXIT_CODE = re.compile(r",?\s*exit code:\s*(\d+)\s*$", re.IGNORECASE)
_KIND = re.compile(r"^(AlgorithmError|ClientError|InternalServerError|CapacityError):\s*")
_LIMITS = {
    "MaxRuntimeExceeded": "sagemaker.training.max_runtime_seconds",
    "MaxWaitTimeExceeded": "sagemaker.training.max_wait_seconds",
}


def job_failure(
    name: str, *, status: str, detail: str, reason: str, log: Sequence[str]
) -> DarkroomError:
    """The error of a training job that did not complete.

    Args:
        status: TrainingJobStatus, Failed or Stopped.
        detail: SecondaryStatus.
        reason: FailureReason.
        log: the last lines of its log.

    Returns:
        A UserError where the `train` program, or SageMaker, blames the input.
    """
    kind = UserError if is_users_fault(reason) else DarkroomError
    parts = [f"training job {name!r} {_outcome(status, detail=detail, reason=reason)}"]
    if log:
        parts.append("The last lines of its log:\n" + "\n".join(f"  {line}" for line in log))
    return kind("\n".join(parts))


def without_kind(reason: str) -> str:
    """A FailureReason without what SageMaker puts around the program's own words."""
    return _EXIT_CODE.sub("", _KIND.sub("", reason)).strip() or reason


def is_users_fault(reason: str) -> bool:
    """Whether the `train` program, or SageMaker, blames the input."""
    code = _EXIT_CODE.search(reason)
    if code:
        return int(code.group(1)) == UserError.exit_code
    return reason.startswith("ClientError")


def _outcome(status: str, *, detail: str, reason: str) -> str:
    if detail in _LIMITS:
        return (
            f"was stopped: {detail}. Raise {_LIMITS[detail]}; the same command goes on from the "
            "last checkpoint."
        )
    if status == "Stopped":
        return "was stopped. The same command goes on from the last checkpoint."
    advice = ""
    if reason.startswith(("CapacityError", "InternalServerError")):
        advice = " Run the same command again, later or with another instance type."
    return f"failed: {without_kind(reason) or 'SageMaker gives no reason'}.{advice}"
