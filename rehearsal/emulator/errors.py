"""AWS's errors: a code that programs look at, a message for people, an HTTP status."""

import json
from xml.sax.saxutils import escape

from werkzeug.wrappers import Response

NOT_EXECUTED = "NotExecutedInRehearsal"
"""Code of requests that AWS would take and the rehearsal cannot execute."""


class LostConnection(Exception):  # noqa: N818  an event, not an answer
    """The caller gets no answer: its connection is closed."""


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

    def response(self, *, protocol: str = "json") -> Response:
        """As services of a protocol send it.

        Args:
            protocol: "json" (SageMaker, logs), "xml" (S3, STS, IAM), "cbor" (CloudWatch).
        """
        if protocol == "xml":
            return self._xml()
        if protocol == "cbor":
            return self._cbor()
        return Response(
            json.dumps({"__type": self.code, "message": self.message, "Message": self.message}),
            status=self.status,
            content_type="application/x-amz-json-1.1",
            headers={"x-amzn-ErrorType": self.code},
        )

    def _xml(self) -> Response:
        inner = f"<Code>{self.code}</Code><Message>{escape(self.message)}</Message>"
        text = f"<ErrorResponse><Error>{inner}</Error></ErrorResponse>"
        return Response(text, status=self.status, content_type="application/xml")

    def _cbor(self) -> Response:
        pairs = {"__type": self.code, "message": self.message}
        body = b"\xa2" + b"".join(_cbor_text(t) for pair in pairs.items() for t in pair)
        headers = {"smithy-protocol": "rpc-v2-cbor"}
        return Response(body, status=self.status, content_type="application/cbor", headers=headers)


def _cbor_text(text: str) -> bytes:
    """RFC 8949, major type 3 with a length of two bytes."""
    content = text.encode()
    return b"\x79" + len(content).to_bytes(2, "big") + content


def own_mistake(error: Exception) -> str:
    """The FailureReason of what failed by a mistake of the emulator's."""
    return f"InternalServerError: the rehearsal failed, not the job: {error!r}"


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
