"""What SageMaker and its neighbours complain about, said so that the user can act on it."""

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ParamValidationError,
)

from darkroom.backends.aws_access import access_problem, error_code
from darkroom.errors import DarkroomError, UserError

THROTTLED = frozenset(
    {
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"})
_QUOTA = frozenset({"LimitExceededException", "ResourceLimitExceeded", "ServiceQuotaExceeded"})


@contextmanager
def aws_errors_explained(what: str) -> Iterator[None]:
    """Turn what boto3 raises while it works on `what` into errors that say what to do.

    Args:
        what: such as "training job 'x'", ready to begin a sentence.
    """
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        raise explained(error, what=what) from error


def explained(error: ClientError | BotoCoreError, *, what: str) -> DarkroomError:
    """The error to raise in place of boto3's."""
    if problem := access_problem(error, subject=what, service="AWS"):
        return problem
    if isinstance(error, ClientError):
        return _client_problem(error, what=what)
    if isinstance(error, ParamValidationError):
        return DarkroomError(f"{what}: the request is malformed: {error}")
    return DarkroomError(f"{what}: AWS failed: {error}")


def is_missing(error: ClientError) -> bool:
    """Whether a resource that was asked about does not exist.

    SageMaker says it in several ways, among them a ValidationException.
    """
    code, message = error_code(error), _message(error)
    if code in ("ResourceNotFound", "ResourceNotFoundException", "404", "NoSuchKey", "NotFound"):
        return True
    said = ("could not find", "not found", "does not exist", "no scalable target found")
    return code == "ValidationException" and any(words in message.lower() for words in said)


def is_taken(error: ClientError) -> bool:
    """Whether the name of what was to be created is in use already."""
    code, message = error_code(error), _message(error)
    if code in ("ResourceInUse", "ConflictException", "ResourceInUseException"):
        return True
    return code == "ValidationException" and "already exist" in message.lower()


def _client_problem(error: ClientError, *, what: str) -> DarkroomError:
    code, message = error_code(error), _message(error)
    operation = error.operation_name
    if code in _DENIED:
        return UserError(
            f"{what}: {operation} is not allowed: {message}. "
            "Ask for that permission (docs/sagemaker.md lists all), or use other credentials."
        )
    if code in _QUOTA:
        return UserError(
            f"{what}: a quota of the account is used up: {message}. Ask for more under Service "
            "Quotas, stop what runs (run.py endpoints and down, --stack sagemaker), or use another "
            "instance type."
        )
    if code in THROTTLED:
        return DarkroomError(
            f"{what}: AWS keeps asking to slow down ({code} at {operation}). "
            "Run the same command again: it goes on where it was."
        )
    if code == "ValidationException":
        return UserError(f"{what}: AWS refuses {operation}: {message}")
    if is_missing(error):
        return UserError(f"{what} does not exist ({operation}: {message})")
    return DarkroomError(f"{what}: {operation} failed: {code}: {message}")


def _message(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Message", "")).rstrip(".")
