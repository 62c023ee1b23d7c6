"""Asking an endpoint of SageMaker that answers at once."""

import json
from typing import Any

from botocore.exceptions import ClientError

from darkroom.backends.aws_access import error_code
from darkroom.backends.endpoint import EndpointError
from darkroom.backends.sagemaker.clients import Clients
from darkroom.backends.sagemaker.following import Patient, Pause, sleep
from darkroom.backends.sagemaker.requests.hosting import Request, invoke_request
from darkroom.errors import DarkroomError, UserError

_SECONDS_OF_TROUBLE = 60.0
"""An endpoint that only fails for so long is given up: it may have just come into service."""
_TOO_LARGE, _MODEL_ERROR = 413, 424
"""Statuses: of a body beyond 6 MiB; of a ModelError, which carries the container's own inside."""


class SageMakerEndpoint:
    """Asks an endpoint of SageMaker. Threads may share it.

    Args:
        name: of the endpoint.
        target_model: which model of a multi-model endpoint.
    """

    def __init__(
        self, name: str, *, clients: Clients, pause: Pause = sleep, target_model: str = ""
    ) -> None:
        self._name, self._target_model = name, target_model
        self._patient = Patient(
            clients,
            what=f"endpoint {name!r}",
            pause=pause,
            give_up_seconds=_SECONDS_OF_TROUBLE,
        )

    def invoke(self, image: bytes, *, content_type: str, top_k: int = 5) -> dict[str, Any]:
        """Send one encoded image.

        Returns:
            `class`, `probability`, `top_k` (a list of class and probability) and
            `model_version`.

        Raises:
            EndpointError: its container answers with an error, or the image is too large.
            UserError: there is no such endpoint in service, or AWS refuses.
            DarkroomError: AWS cannot be reached.
        """
        request = invoke_request(
            self._name,
            image=image,
            content_type=content_type,
            top_k=top_k,
            target_model=self._target_model,
        )
        answer: dict[str, Any] = json.loads(self._patient.ask(lambda c: self._ask(c, request)))
        return answer

    def _ask(self, clients: Clients, request: Request) -> bytes:
        try:
            return clients.runtime.invoke_endpoint(**request)["Body"].read()
        except ClientError as error:
            if problem := refusal(error, name=self._name):
                raise problem from error
            raise


def refusal(error: ClientError, *, name: str) -> DarkroomError | None:
    """What the container, or SageMaker before it, has against a request; None: something else."""
    code, response = error_code(error), error.response
    message = response.get("Error", {}).get("Message", "")
    if code == "ModelError":
        status = str(response.get("OriginalStatusCode") or _MODEL_ERROR)
        said = response.get("OriginalMessage", "")
        text = f"the endpoint {name!r} answers {status}: {said}"
        return EndpointError(text, status=int(status))
    if response.get("ResponseMetadata", {}).get("HTTPStatusCode") == _TOO_LARGE:
        text = f"the endpoint {name!r} takes no image as large: {message}"
        return EndpointError(text, status=_TOO_LARGE)
    if code == "ValidationError" and "not found" in message:
        return UserError(
            f"there is no endpoint {name!r} in service: {message} "
            "`run.py endpoints --stack sagemaker` lists those of Darkroom's."
        )
    return None
