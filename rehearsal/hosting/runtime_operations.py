"""sagemaker-runtime: InvokeEndpoint and InvokeEndpointAsync."""

import json

from werkzeug.wrappers import Request, Response

from rehearsal.emulator.errors import not_executed
from rehearsal.emulator.members import check_given, shape_of
from rehearsal.emulator.operations import route
from rehearsal.emulator.state import State
from rehearsal.hosting.asynchronous import invoke_from_s3, refuse_asynchronous
from rehearsal.hosting.invocations import CUSTOM_ATTRIBUTES, Inference, Outcome, invoke

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
