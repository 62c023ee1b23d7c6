"""Clients of a SageMaker endpoint, at once or asynchronous, chosen by the endpoint's kind."""

import json
import re
import uuid
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from darkroom.backends.endpoint import EndpointError, InferenceClient
from darkroom.backends.sagemaker.hosting.request import (
    ANSWERS,
    IMAGES,
    Request,
    invoke_asynchronously_request,
    invoke_request,
)
from darkroom.backends.sagemaker.hosting.state import describe, describe_configuration
from darkroom.backends.sagemaker.retry import Pause, Retrier, sleep, wait_for
from darkroom.backends.sagemaker.session import Clients, is_missing
from darkroom.backends.storage.access import error_code
from darkroom.backends.storage.listing import S3Address
from darkroom.backends.storage.s3 import encryption_by
from darkroom.base.errors import DarkroomError, UserError

# --- real-time endpoints ---
# Asking an endpoint of SageMaker that answers at once.

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
        self._patient = Retrier(
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


# --- asynchronous endpoints ---
# Asking an asynchronous endpoint: the image goes to S3, and the answer is waited for there.

_MAX_SECONDS = 1800.0
"""Until an answer: where no instance runs, an alarm takes minutes to have one started."""
_STATUS = re.compile(r"\b(?:error|status)\W{1,4}([45]\d\d)\b")
_NO_STATUS = 424


class AsynchronousEndpoint:
    """Asks an asynchronous endpoint, as if it answered at once. Threads may share it.

    Image and answer are deleted from S3 once the answer has been read.

    Args:
        name: of the endpoint.
        output: its configuration's OutputConfig: where answers go, by which key.
        seconds: to wait for an answer.
    """

    def __init__(
        self,
        name: str,
        *,
        output: Mapping[str, Any],
        clients: Clients,
        pause: Pause = sleep,
        seconds: float = _MAX_SECONDS,
    ) -> None:
        self._name, self._clients, self._pause, self._seconds = name, clients, pause, seconds
        place = str(output["S3OutputPath"]).rstrip("/")
        self._images = f"{place.removesuffix(ANSWERS).rstrip('/')}/{IMAGES}"
        self._encryption = encryption_by(str(output.get("KmsKeyId", "")))
        self._patient = Retrier(clients, what=f"endpoint {name!r}", pause=pause)

    def invoke(self, image: bytes, *, content_type: str, top_k: int = 5) -> dict[str, Any]:
        """Upload one encoded image, have it classified, and wait for the answer.

        Returns:
            `class`, `probability`, `top_k` (a list of class and probability) and
            `model_version`.

        Raises:
            EndpointError: its container answers with an error.
            UserError: there is no such endpoint in service, or AWS refuses.
            DarkroomError: AWS cannot be reached, or no answer has come in time.
        """
        number = uuid.uuid4().hex
        location = f"{self._images}/{number}"
        done = [location]
        try:
            self._upload(image, location=location)
            request = invoke_asynchronously_request(
                self._name,
                location=location,
                content_type=content_type,
                top_k=top_k,
                inference_id=number,
                wait_seconds=self._seconds,
            )
            places = self._patient.ask(partial(self._send, request=request))
            done += places
            return self._wait(*places)
        finally:
            self._forget(done)

    def _upload(self, image: bytes, *, location: str) -> None:
        place = S3Address.parse(location)
        self._patient.ask(
            lambda c: c.s3.put_object(
                Bucket=place.bucket, Key=place.key, Body=image, **self._encryption
            )
        )

    def _send(self, clients: Clients, *, request: Request) -> list[str]:
        """Where the answer will lie, and where the reason of a failure."""
        try:
            told = clients.runtime.invoke_endpoint_async(**request)
        except ClientError as error:
            if problem := refusal(error, name=self._name):
                raise problem from error
            raise
        places = (told["OutputLocation"], told.get("FailureLocation", ""))
        return [place for place in places if place]

    def _wait(self, answer: str, failure: str = "") -> dict[str, Any]:
        """Look for both; whichever comes first is it."""

        def look(clients: Clients) -> tuple[bytes | None, bytes | None]:
            found = _content(answer, clients=clients)
            failed = _content(failure, clients=clients) if failure and found is None else None
            return found, failed

        found, failed = wait_for(
            look,
            until=lambda seen: seen != (None, None),
            clients=self._clients,
            what=f"the answer of the endpoint {self._name!r}",
            timeout_seconds=self._seconds,
            pause=self._pause,
        )
        if found is None:
            raise self._failure((failed or b"").decode(errors="replace"))
        content: dict[str, Any] = json.loads(found)
        return content

    def _failure(self, text: str) -> EndpointError:
        status = _STATUS.search(text)
        return EndpointError(
            f"the endpoint {self._name!r} failed: {text.strip()}",
            status=int(status[1]) if status else _NO_STATUS,
        )

    def _forget(self, uris: list[str]) -> None:
        """Nobody needs them any more; whoever may not delete them leaves them to the bucket."""
        for uri in uris:
            place = S3Address.parse(uri)
            with suppress(ClientError, BotoCoreError):
                self._clients.s3.delete_object(Bucket=place.bucket, Key=place.key)


def _content(uri: str, *, clients: Clients) -> bytes | None:
    """What an object holds; None: it is not there."""
    place = S3Address.parse(uri)
    try:
        return clients.s3.get_object(Bucket=place.bucket, Key=place.key)["Body"].read()
    except ClientError as error:
        if not is_missing(error):
            raise
        return None


# --- choice by kind ---


def client_of(
    name: str, *, clients: Clients, target_model: str = "", pause: Pause = sleep
) -> InferenceClient:
    """Something that asks the endpoint, at once or by way of S3. Threads may share it.

    Args:
        target_model: which model of an endpoint with several, such as "dogs.tar.gz".

    Raises:
        UserError: there is no such endpoint, or AWS refuses.
        DarkroomError: AWS cannot be reached.
    """
    patient = Retrier(clients, what=f"endpoint {name!r}", pause=pause)
    state = patient.ask(lambda renewed: describe(name, clients=renewed))
    if state is None:
        raise UserError(
            f"there is no endpoint {name!r}; "
            "`run.py endpoints --stack sagemaker` lists those of Darkroom's"
        )
    serving = state.configuration
    found = patient.ask(lambda renewed: describe_configuration(serving, clients=renewed))
    if output := found.get("AsyncInferenceConfig", {}).get("OutputConfig"):
        return AsynchronousEndpoint(name, output=output, clients=clients, pause=pause)
    return SageMakerEndpoint(name, clients=clients, pause=pause, target_model=target_model)
