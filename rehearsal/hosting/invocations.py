"""InvokeEndpoint: a request on its way to a container, and the answer on its way back."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from rehearsal.emulator.errors import AwsError
from rehearsal.emulator.state import State
from rehearsal.hosting.capture import Exchange, capture
from rehearsal.hosting.endpoints import Endpoint, not_in_service
from rehearsal.hosting.fleets import Fleet, Variant
from rehearsal.hosting.measurements import measurements
from rehearsal.hosting.model_errors import ModelError, model_error, no_answer_error
from rehearsal.hosting.multi_model import send_to_model
from rehearsal.hosting.servers import INVOCATION_SECONDS, Answer, ModelServer, NoAnswerError

MAXIMUM_BYTES = 6291456
MAXIMUM_BYTES_SERVERLESS = 4 * 2**20

CUSTOM_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"


@dataclass(frozen=True)
class Inference:
    """What a caller sends to an endpoint."""

    body: bytes
    content_type: str = ""
    accept: str = ""
    custom_attributes: str = ""
    target_model: str = ""
    target_variant: str = ""
    target_container: str = ""
    inference_id: str = ""

    def headers(self) -> dict[str, str]:
        """As the container gets them."""
        given = {
            "Content-Type": self.content_type,
            "Accept": self.accept,
            CUSTOM_ATTRIBUTES: self.custom_attributes,
            "X-Amzn-SageMaker-Inference-Id": self.inference_id,
        }
        return {name: value for name, value in given.items() if value}


@dataclass(frozen=True)
class Outcome:
    """What comes back of it."""

    answer: Answer
    variant: str


def invoke(
    endpoint_name: str,
    *,
    inference: Inference,
    state: State,
    maximum_bytes: int = MAXIMUM_BYTES,
    seconds: float = INVOCATION_SECONDS,
) -> Outcome:
    """Send a request to one of the endpoint's containers. Raises AwsError, ModelError."""
    fleet, variant = _destination(endpoint_name, inference=inference, state=state)
    try:
        limit = (
            min(maximum_bytes, MAXIMUM_BYTES_SERVERLESS) if variant.serverless else maximum_bytes
        )
        _check_size(inference.body, limit=limit)
        answer = _measured(
            endpoint_name, inference=inference, variant=variant, seconds=seconds, state=state
        )
        exchange = _exchange(endpoint_name, inference=inference, answer=answer, variant=variant)
        capture(exchange, config=fleet.config.capture, state=state)
    finally:
        fleet.leave()
    return Outcome(answer, variant.name)


def _measured(
    endpoint_name: str, *, inference: Inference, variant: Variant, seconds: float, state: State
) -> Answer:
    """Have it answered, and note for CloudWatch how that went."""
    chain = variant.chain(inference.target_container)
    begin, status = time.monotonic(), 0
    try:
        _keep_silent(endpoint_name, container=chain[0].hostname, seconds=seconds, state=state)
        answer = _pass_through(chain, inference=inference, seconds=seconds, state=state)
        status = answer.status
    except NoAnswerError as error:
        raise no_answer_error(error, endpoint=endpoint_name, state=state) from error
    except ModelError as error:
        status = error.original_status
        raise error.of(endpoint_name, state=state) from error
    finally:
        took = time.monotonic() - begin
        measurements(state).note(endpoint_name, variant=variant.name, status=status, seconds=took)
    return answer


def _destination(
    endpoint_name: str, *, inference: Inference, state: State
) -> tuple[Fleet, Variant]:
    with state.lock:
        endpoint = state.kept(Endpoint).get(endpoint_name)
        if endpoint is None:
            arn = state.arn("endpoint", endpoint_name)
            raise not_in_service(endpoint_name, arn=arn)
        fleet = endpoint.choose_fleet()
        variant = fleet.choose(inference.target_variant)
        fleet.enter()
        return fleet, variant


def _check_size(body: bytes, *, limit: int) -> None:
    if len(body) > limit:
        # Without a code in the answer, SDKs show the status as the code, as they do on AWS.
        raise AwsError("413", f"HTTP content length exceeded {limit} bytes.", status=413)


def _pass_through(
    chain: list[ModelServer], *, inference: Inference, seconds: float, state: State
) -> Answer:
    """Each container gets the answer of the one before it."""
    body, headers = inference.body, inference.headers()
    for server in chain:
        if server.is_multi_model:
            answer = send_to_model(
                server,
                target=inference.target_model,
                body=body,
                headers=headers,
                seconds=seconds,
                state=state,
            )
        else:
            _refuse_target_model(inference)
            answer = server.send(
                "POST", path="/invocations", body=body, headers=headers, seconds=seconds
            )
        if answer.status >= 400:
            raise model_error(answer, container=server.hostname)
        body, headers = answer.body, _passed_on(headers, answer=answer)
    return answer


def _keep_silent(endpoint_name: str, *, container: str, seconds: float, state: State) -> None:
    """Where a fault says so: for a while, or until SageMaker's patience is at its end."""
    silence = state.faults.hanging_endpoint(endpoint_name)
    state.ending.wait(min(silence, seconds))
    if silence >= seconds:
        message = f"hanging_endpoint, for {silence} seconds"
        raise NoAnswerError(message, container=container, timed_out=True)


def _refuse_target_model(inference: Inference) -> None:
    if inference.target_model:
        raise AwsError(
            "ValidationError",
            "TargetModel header is not supported: the endpoint does not host several models.",
        )


def _passed_on(headers: Mapping[str, str], *, answer: Answer) -> dict[str, str]:
    return {**headers, "Content-Type": answer.content_type}


def _exchange(
    endpoint_name: str, *, inference: Inference, answer: Answer, variant: Variant
) -> Exchange:
    return Exchange(
        endpoint=endpoint_name,
        variant=variant.name,
        sent_type=inference.content_type,
        sent=inference.body,
        answer_type=answer.content_type,
        answer=answer.body,
        custom_attributes=inference.custom_attributes,
        inference_id=inference.inference_id,
    )
