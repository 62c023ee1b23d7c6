"""sagemaker-runtime: InvokeEndpoint and InvokeEndpointAsync."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from botocore.exceptions import ClientError
from werkzeug.wrappers import Request, Response

from rehearsal.emulator.errors import AwsError, not_executed
from rehearsal.emulator.members import check_given, shape_of
from rehearsal.emulator.operations import route
from rehearsal.emulator.state import State
from rehearsal.hosting.endpoints import Endpoint, not_in_service
from rehearsal.hosting.invocations import CUSTOM_ATTRIBUTES, Inference, Outcome, invoke
from rehearsal.jobs.storage import split_uri

# --- asynchronous ---
# InvokeEndpointAsync: the request comes from S3, and the answer goes there.

_MAX_BYTES = 2**30
_MAX_SECONDS = 3600
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
            seconds=min(seconds, _MAX_SECONDS),
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
            maximum_bytes=_MAX_BYTES,
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


# --- runtime operations ---

_PREFIX = "X-Amzn-SageMaker-"
_ASYNCHRONOUS_SECONDS = 900
"""Of the API reference, where InvocationTimeoutSeconds is not given."""
_NAME = "(?P<endpoint>[^/]+)"


@route("POST", f"/endpoints/{_NAME}/invocations")
def invoke_endpoint(call: Request, *, state: State, endpoint: str) -> Response:
    """Answer with what the container answers."""
    _check_members(call, operation="InvokeEndpoint", state=state)
    refuse_asynchronous(endpoint, state=state)
    outcome = invoke(endpoint, inference=_inference(call, body=call.get_data()), state=state)
    return _response(outcome)


@route("POST", f"/endpoints/{_NAME}/async-invocations")
def invoke_endpoint_async(call: Request, *, state: State, endpoint: str) -> Response:
    """Answer at once; the result comes to S3."""
    _check_members(call, operation="InvokeEndpointAsync", state=state)
    ticket = invoke_from_s3(
        endpoint,
        inference=_inference(call, body=b""),
        location=call.headers.get(f"{_PREFIX}InputLocation", ""),
        seconds=float(
            call.headers.get(f"{_PREFIX}InvocationTimeoutSeconds", _ASYNCHRONOUS_SECONDS)
        ),
        state=state,
    )
    headers = {
        f"{_PREFIX}OutputLocation": ticket.output,
        f"{_PREFIX}FailureLocation": ticket.failure,
    }
    return Response(
        json.dumps({"InferenceId": ticket.inference_id}),
        status=202,
        content_type="application/json",
        headers={name: value for name, value in headers.items() if value},
    )


@route("POST", f"/endpoints/{_NAME}/invocations-response-stream")
def invoke_with_response_stream(call: Request, *, state: State, endpoint: str) -> Response:
    """Refused."""
    raise not_executed("InvokeEndpointWithResponseStream", why="answers are not streamed")


def _check_members(call: Request, *, operation: str, state: State) -> None:
    """Refuse members that are not executed; they come as headers, the body aside."""
    shape = shape_of(operation, service="sagemaker-runtime")
    given = {
        name: call.headers.get(member.serialization.get("name", ""), "")
        for name, member in shape.members.items()
        if member.serialization.get("location") == "header"
    }
    if operation == "InvokeEndpointAsync":
        given["Body"] = call.get_data().decode(errors="replace")
    check_given(shape, given, operation=operation, state=state)


def _inference(call: Request, *, body: bytes) -> Inference:
    def header(name: str) -> str:
        return str(call.headers.get(f"{_PREFIX}{name}", ""))

    return Inference(
        body=body,
        # SDKs put the caller's Accept of an asynchronous request into a header of its own.
        content_type=header("Content-Type") or call.headers.get("Content-Type", ""),
        accept=header("Accept") or call.headers.get("Accept", ""),
        custom_attributes=header("Custom-Attributes"),
        target_model=header("Target-Model"),
        target_variant=header("Target-Variant"),
        target_container=header("Target-Container-Hostname"),
        inference_id=header("Inference-Id"),
    )


def _response(outcome: Outcome) -> Response:
    answer = outcome.answer
    attributes = {name.lower(): value for name, value in answer.headers.items()}.get(
        CUSTOM_ATTRIBUTES.lower()
    )
    headers = {"x-Amzn-Invoked-Production-Variant": outcome.variant}
    if attributes:
        headers[CUSTOM_ATTRIBUTES] = attributes
    return Response(answer.body, status=200, content_type=answer.content_type, headers=headers)
