"""InvokeEndpointAsync: the request comes from S3, and the answer goes there."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from botocore.exceptions import ClientError

from rehearsal.emulator.errors import AwsError
from rehearsal.emulator.state import State
from rehearsal.hosting.endpoints import Endpoint, not_in_service
from rehearsal.hosting.invocations import Inference, invoke
from rehearsal.s3_uris import split_uri

_MAXIMUM_BYTES = 2**30
_MAXIMUM_SECONDS = 3600
"""Both of the developer guide, "Asynchronous Inference"."""


@dataclass(frozen=True)
class Ticket:
    """What the caller is told at once."""

    inference_id: str
    output: str
    failure: str


def invoke_from_s3(
    endpoint: str, *, inference: Inference, location: str, seconds: float, state: State
) -> Ticket:
    """Begin an invocation beside the requests. Raises AwsError.

    Args:
        seconds: that the container may take, at most an hour.
    """
    config = _output_config(endpoint, state=state)
    if not location:
        raise AwsError("ValidationError", "InputLocation is required.")
    number = str(uuid.uuid4())
    failures = config.get("S3FailurePath", "").rstrip("/")
    ticket = Ticket(
        inference_id=inference.inference_id or number,
        output=f"{config['S3OutputPath'].rstrip('/')}/{number}.out",
        failure=f"{failures}/{number}-error.out" if failures else "",
    )
    state.start(
        lambda: _run(
            endpoint,
            inference=inference,
            location=location,
            ticket=ticket,
            seconds=min(seconds, _MAXIMUM_SECONDS),
            state=state,
        ),
        name=f"asynchronous invocation {number}",
    )
    return ticket


def refuse_asynchronous(endpoint: str, *, state: State) -> None:
    """Endpoints with AsyncInferenceConfig take asynchronous requests alone (developer guide).

    Raises AwsError.
    """
    kept = state.kept(Endpoint).get(endpoint)
    if kept is not None and kept.config.request.get("AsyncInferenceConfig"):
        raise AwsError(
            "ValidationError",
            f"Endpoint {endpoint} is an asynchronous endpoint: use InvokeEndpointAsync.",
        )


def _output_config(endpoint: str, *, state: State) -> Mapping[str, Any]:
    kept = state.kept(Endpoint).get(endpoint)
    if kept is None:
        raise not_in_service(endpoint, arn=state.arn("endpoint", endpoint))
    settings = kept.config.request.get("AsyncInferenceConfig")
    if not settings:
        raise AwsError("ValidationError", f"Endpoint {endpoint} is not an asynchronous endpoint.")
    output = settings["OutputConfig"]
    if "S3OutputPath" not in output:
        raise AwsError("ValidationError", "OutputConfig.S3OutputPath is required.")
    return dict(output)


def _run(
    endpoint: str,
    *,
    inference: Inference,
    location: str,
    ticket: Ticket,
    seconds: float,
    state: State,
) -> None:
    try:
        bucket, key = split_uri(location)
        body = state.clients["s3"].get_object(Bucket=bucket, Key=key)["Body"].read()
        outcome = invoke(
            endpoint,
            inference=replace(inference, body=body),
            state=state,
            maximum_bytes=_MAXIMUM_BYTES,
            seconds=seconds,
        )
    except (AwsError, ClientError, ValueError) as error:
        if ticket.failure:
            _put(ticket.failure, body=json.dumps({"error": str(error)}).encode(), state=state)
        return
    _put(ticket.output, body=outcome.answer.body, state=state)


def _put(uri: str, *, body: bytes, state: State) -> None:
    bucket, key = split_uri(uri)
    state.clients["s3"].put_object(Bucket=bucket, Key=key, Body=body)
