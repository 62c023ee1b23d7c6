"""ModelError: what a caller gets where the container refused, failed, or did not answer."""

import json

from werkzeug.wrappers import Response

from rehearsal.emulator.errors import AwsError
from rehearsal.emulator.state import State
from rehearsal.hosting.servers import Answer, NoAnswerError

_QUOTED_CHARACTERS = 1024


class ModelError(AwsError):
    """Status 424, with the container's own status and message."""

    def __init__(self, message: str, *, original_status: int, original_message: str) -> None:
        super().__init__("ModelError", message, status=424)
        self.original_status = original_status
        self.original_message = original_message
        self.log_arn = ""

    def of(self, endpoint: str, *, state: State) -> "ModelError":
        """The same, saying where the log is."""
        settings = state.settings
        group = f"/aws/sagemaker/Endpoints/{endpoint}"
        more = (
            f" See https://{settings.region}.console.aws.amazon.com/cloudwatch/home?region="
            f"{settings.region}#logEventViewer:group={group} in account {settings.account} "
            "for more information."
        )
        error = ModelError(
            self.message + more,
            original_status=self.original_status,
            original_message=self.original_message,
        )
        error.log_arn = f"arn:aws:logs:{settings.region}:{settings.account}:log-group:{group}"
        return error

    def response(self, *, protocol: str = "json") -> Response:
        """As sagemaker-runtime sends it; it speaks JSON only."""
        content = {
            "Message": self.message,
            "OriginalStatusCode": self.original_status,
            "OriginalMessage": self.original_message,
            "LogStreamArn": self.log_arn,
        }
        return Response(
            json.dumps(content),
            status=self.status,
            content_type="application/json",
            headers={"x-amzn-ErrorType": self.code},
        )


def model_error(answer: Answer, *, container: str) -> ModelError:
    """Of an answer with a status of 400 or more."""
    text = answer.body[:_QUOTED_CHARACTERS].decode(errors="replace")
    kind = "client" if answer.status < 500 else "server"
    return ModelError(
        f'Received {kind} error ({answer.status}) from {container} with message "{text}".',
        original_status=answer.status,
        original_message=text,
    )


def no_answer_error(error: NoAnswerError, *, endpoint: str, state: State) -> ModelError:
    """Of a container that took longer than 60 seconds, or has ended, or hung up."""
    late = (
        f"Your invocation timed out while waiting for a response from container "
        f"{error.container}. Review the latency metrics for each container in Amazon CloudWatch, "
        "resolve the issue, and try again."
    )
    gone = (
        f"Amazon SageMaker could not get a response from the {endpoint} endpoint. This can occur "
        "when CPU or memory utilization is high. To check your utilization, see Amazon "
        "CloudWatch. To fix this problem, use an instance type with more CPU capacity or memory."
    )
    text = f"{late if error.timed_out else gone} (rehearsal: {error})"
    return ModelError(
        f'Received server error (0) from {error.container} with message "{text}".',
        original_status=0,
        original_message=text,
    ).of(endpoint, state=state)
