"""AWS's errors: a code that programs look at, a message for people, an HTTP status."""

import json

from werkzeug.wrappers import Response

NOT_EXECUTED = "NotExecutedInRehearsal"
"""Code of requests that AWS would take and the rehearsal cannot execute."""


class AwsError(Exception):
    """Raised by an operation; the caller's SDK raises it as ClientError.

    Args:
        code: such as "ValidationException", "ResourceInUse", "ResourceNotFound".
        status: HTTP status; 500 and above are repeated by the SDKs.
    """

    def __init__(self, code: str, message: str, *, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status

    def response(self) -> Response:
        """As services with JSON protocols send it (SageMaker, logs, its runtime)."""
        return Response(
            json.dumps({"__type": self.code, "message": self.message, "Message": self.message}),
            status=self.status,
            content_type="application/x-amz-json-1.1",
            headers={"x-amzn-ErrorType": self.code},
        )


def invalid(message: str) -> AwsError:
    """A request that AWS would refuse."""
    return AwsError("ValidationException", message)


def not_found(message: str) -> AwsError:
    """Something named in a request does not exist; SageMaker has two codes for it.

    Most Describe operations answer ValidationException, jobs' answer ResourceNotFound.
    """
    return AwsError("ResourceNotFound", message)


def in_use(message: str) -> AwsError:
    """The name is taken, or the thing is not in a state that allows this."""
    return AwsError("ResourceInUse", message)


def not_executed(what: str, *, why: str) -> AwsError:
    """AWS would do it, the rehearsal cannot; it says so instead of pretending."""
    return AwsError(
        NOT_EXECUTED, f"{what} is not executed in the rehearsal: {why}. On AWS it may work."
    )
