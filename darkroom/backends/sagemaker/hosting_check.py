"""Whether an endpoint that is in service answers as the model was evaluated."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from darkroom.backends.aws_access import error_code
from darkroom.backends.endpoint import Endpoint, EndpointCheck, EndpointError, compare_answers
from darkroom.backends.sagemaker.clients import Clients
from darkroom.backends.sagemaker.container_log import ENDPOINTS, last_lines
from darkroom.backends.sagemaker.following import Patient, Pause, sleep
from darkroom.backends.sagemaker.requests.hosting import Request, invoke_request
from darkroom.backends.sagemaker.rollback import accept, undo
from darkroom.engines.protocol import Floats
from darkroom.errors import DarkroomError, UserError
from darkroom.progress import SILENT, Progress

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
            if problem := self._problem(error):
                raise problem from error
            raise

    def _problem(self, error: ClientError) -> DarkroomError | None:
        """What the container, or SageMaker before it, has against this request."""
        code, response = error_code(error), error.response
        message = response.get("Error", {}).get("Message", "")
        if code == "ModelError":
            status = str(response.get("OriginalStatusCode", _MODEL_ERROR))
            said = response.get("OriginalMessage", "")
            text = f"the endpoint {self._name!r} answers {status}: {said}"
            return EndpointError(text, status=int(status))
        if response.get("ResponseMetadata", {}).get("HTTPStatusCode") == _TOO_LARGE:
            text = f"the endpoint {self._name!r} takes no image as large: {message}"
            return EndpointError(text, status=_TOO_LARGE)
        if code == "ValidationError" and "not found" in message:
            return UserError(
                f"there is no endpoint {self._name!r} in service: {message} "
                "`run.py endpoints` lists those of Darkroom's."
            )
        return None


def check_endpoint(
    endpoint: Endpoint,
    *,
    images: Sequence[Path],
    expected: Floats,
    classes: Sequence[str],
    tolerance: float,
    clients: Clients,
    pause: Pause = sleep,
) -> EndpointCheck:
    """Send image files as they are, and compare the answers with the expected ones.

    Args:
        expected: (N, C) probabilities, columns in the order of `classes`.
        tolerance: largest difference of a probability that counts as agreement.

    Raises:
        EndpointError: an image is refused, or the endpoint is gone.
    """
    answering = SageMakerEndpoint(str(endpoint.name), clients=clients, pause=pause)
    return compare_answers(
        answering, images=images, expected=expected, classes=classes, tolerance=tolerance
    )


def verify_endpoint(
    endpoint: Endpoint,
    *,
    images: Sequence[Path],
    expected: Floats,
    classes: Sequence[str],
    tolerance: float,
    clients: Clients,
    progress: Progress = SILENT,
    pause: Pause = sleep,
) -> EndpointCheck:
    """As `check_endpoint`; accept the deployment that agrees, take back the one that does not.

    Raises:
        EndpointError: it disagrees, or does not answer; the deployment was undone.
    """
    try:
        check = check_endpoint(
            endpoint,
            images=images,
            expected=expected,
            classes=classes,
            tolerance=tolerance,
            clients=clients,
            pause=pause,
        )
        _require_agreement(check, tolerance=tolerance)
    except Exception as error:
        log = last_lines(f"{ENDPOINTS}{endpoint.name}", clients=clients)
        done = undo(endpoint, clients=clients, progress=progress, pause=pause)
        raise EndpointError(f"endpoint {endpoint.name!r}: {error}; {done}\n{log}") from error
    if endpoint.temporary:
        return check
    accept(endpoint, clients=clients, pause=pause)
    return check.model_copy(update={"url": endpoint.url})


def _require_agreement(check: EndpointCheck, *, tolerance: float) -> None:
    if not check.agrees:
        raise EndpointError(
            f"only {check.agreement:.1%} of {check.images} answers are as evaluated (largest "
            f"difference of a probability {check.maximum_difference:.3g}, allowed {tolerance:g})"
        )
