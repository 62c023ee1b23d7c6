"""InvokeEndpoint: a request on its way to a container, and the answer on its way back."""

import base64
import hashlib
import json
import queue
import random
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from botocore.exceptions import ClientError
from werkzeug.wrappers import Response

from rehearsal.emulator.errors import AwsError
from rehearsal.emulator.state import State, now
from rehearsal.hosting.endpoints import Endpoint, not_in_service
from rehearsal.hosting.models import ModelDataError, fetch_archive
from rehearsal.hosting.servers import INVOCATION_SECONDS, Answer, ModelServer, NoAnswerError
from rehearsal.hosting.variants import Fleet, Variant
from rehearsal.jobs.storage import split_uri

# --- model errors ---
# ModelError: what a caller gets where the container refused, failed, or did not answer.

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


# --- multi model ---
# Multi-model containers: TargetModel, by SageMaker's contract of the /models API.
#
# POST   /models                    {"model_name": …, "url": folder}: load; 507: no memory
# POST   /models/<name>/invoke      as /invocations
# DELETE /models/<name>             unload
#
# SageMaker brings a model's archive to the instance when it is first asked for, and has the
# container load it under a name of SageMaker's own (developer guide, "Container Contract for
# Multi-Model Endpoints"). When the container has no memory left, others are unloaded.

_LOADING_SECONDS = 60
_NO_MEMORY = 507
_NOT_FOUND = (404, 405, 501)


def send_to_model(
    server: ModelServer,
    *,
    target: str,
    body: bytes,
    headers: Mapping[str, str],
    seconds: float,
    state: State,
) -> Answer:
    """One request to one of the container's models, loaded first where it is not.

    Raises AwsError (no such model, no TargetModel), ModelError, NoAnswerError.
    """
    if not target:
        raise AwsError(
            "ValidationError", "TargetModel header is required to invoke a multi-model endpoint."
        )
    with server.lock:
        name = server.loaded_models.get(target)
    if name is None:
        name = _load(server, target=target, state=state)
    return server.send(
        "POST",
        path=f"/models/{name}/invoke",
        body=body,
        headers={**headers, "X-Amzn-SageMaker-Target-Model": target},
        seconds=seconds,
    )


def _load(server: ModelServer, *, target: str, state: State) -> str:
    name = hashlib.sha256(target.encode()).hexdigest()[:32]
    folder = server.models_folder / name / "model"
    if not folder.exists():
        _fetch(server, target=target, name=name, state=state)
    answer = _ask_to_load(server, name=name)
    while answer.status == _NO_MEMORY and _unload_oldest(server):
        answer = _ask_to_load(server, name=name)
    if answer.status in _NOT_FOUND:
        raise AwsError(
            "ValidationError",
            f"The container of image {server.definition.get('Image')!r} does not implement the "
            f"/models API of multi-model endpoints: POST /models was answered {answer.status}.",
        )
    if answer.status not in (200, 409):
        raise model_error(answer, container=server.hostname)
    with server.lock:
        server.loaded_models[target] = name
    return name


def _fetch(server: ModelServer, *, target: str, name: str, state: State) -> None:
    uri = f"{server.definition['ModelDataUrl'].rstrip('/')}/{target.lstrip('/')}"
    try:
        fetch_archive(uri, folder=server.models_folder / name / "model", state=state)
    except (ClientError, ModelDataError) as error:
        raise AwsError(
            "ValidationError", f"Failed to download model data (bucket and key: {uri}): {error}"
        ) from error


def _ask_to_load(server: ModelServer, *, name: str) -> Answer:
    url = f"{server.models_path}/{name}/model"
    return server.send(
        "POST",
        path="/models",
        body=json.dumps({"model_name": name, "url": url}).encode(),
        headers={"Content-Type": "application/json"},
        seconds=_LOADING_SECONDS,
    )


def _unload_oldest(server: ModelServer) -> bool:
    with server.lock:
        if not server.loaded_models:
            return False
        target = next(iter(server.loaded_models))
        name = server.loaded_models.pop(target)
    server.send("DELETE", path=f"/models/{name}", headers={})
    return True


# --- capture ---
# Data capture: requests and answers as JSON lines in S3, in SageMaker's layout.
#
# <DestinationS3Uri>/<endpoint>/<variant>/<yyyy>/<mm>/<dd>/<hh>/<mm-ss-mmm-id>.jsonl
#
# AWS collects some requests in a file; here every request is a file of its own.


@dataclass(frozen=True)
class Exchange:
    """A request that a container answered."""

    endpoint: str
    variant: str
    sent_type: str
    sent: bytes
    answer_type: str
    answer: bytes
    custom_attributes: str = ""
    inference_id: str = ""


def capture(exchange: Exchange, *, config: Mapping[str, Any], state: State) -> None:
    """Keep an exchange in S3, if the configuration and the dice of its sampling say so."""
    if not is_sampled(config):
        return
    bucket, prefix = split_uri(config["DestinationS3Uri"])
    state.clients["s3"].put_object(
        Bucket=bucket,
        Key=_key(exchange, prefix=prefix),
        Body=json.dumps(captured(exchange, config=config)).encode() + b"\n",
    )


def is_sampled(config: Mapping[str, Any]) -> bool:
    """Whether this request is among the percentage that is kept."""
    if not config or not config.get("EnableCapture", True):
        return False
    return random.random() * 100 < float(config["InitialSamplingPercentage"])  # noqa: S311


def captured(exchange: Exchange, *, config: Mapping[str, Any]) -> dict[str, Any]:
    """The line that is kept of an exchange."""
    modes = {option["CaptureMode"] for option in config["CaptureOptions"]}
    types = config.get("CaptureContentTypeHeader", {})
    data: dict[str, Any] = {}
    if modes & {"Input", "InputAndOutput"}:
        data["endpointInput"] = _side(
            "INPUT", data=exchange.sent, kind=exchange.sent_type, types=types
        )
    if modes & {"Output", "InputAndOutput"}:
        data["endpointOutput"] = _side(
            "OUTPUT", data=exchange.answer, kind=exchange.answer_type, types=types
        )
    return {"captureData": data, "eventMetadata": _metadata(exchange), "eventVersion": "0"}


def _metadata(exchange: Exchange) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "eventId": str(uuid.uuid4()),
        "inferenceTime": now().strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    if exchange.custom_attributes:
        metadata["customAttributes"] = [exchange.custom_attributes]
    if exchange.inference_id:
        metadata["inferenceId"] = exchange.inference_id
    return metadata


def _side(mode: str, *, data: bytes, kind: str, types: Mapping[str, Any]) -> dict[str, str]:
    encoding = _encoding(kind, types=types)
    text = base64.b64encode(data).decode() if encoding == "BASE64" else data.decode()
    return {"observedContentType": kind, "mode": mode, "data": text, "encoding": encoding}


def _encoding(kind: str, *, types: Mapping[str, Any]) -> str:
    """Base64, unless the configuration names the type as text."""
    plain = kind.partition(";")[0].strip()
    if plain in types.get("JsonContentTypes", []):
        return "JSON"
    return "CSV" if plain in types.get("CsvContentTypes", []) else "BASE64"


def _key(exchange: Exchange, *, prefix: str) -> str:
    time = now()
    folders = [exchange.endpoint, exchange.variant, time.strftime("%Y/%m/%d/%H")]
    name = f"{time:%M-%S}-{time.microsecond // 1000:03d}-{uuid.uuid4()}.jsonl"
    return "/".join([*filter(None, [prefix.strip("/")]), *folders, name])


# --- measurements ---
# What SageMaker measures of invocations, put to CloudWatch as it does.

NAMESPACE = "AWS/SageMaker"

_SECONDS_BETWEEN_LOOKS = 0.5
_METRICS_PER_CALL = 500


@dataclass(frozen=True)
class Invocation:
    """One request, as measured."""

    endpoint: str
    variant: str
    status: int
    """Of the container's answer; 0 where there was none."""
    model_microseconds: float
    time: datetime

    def metrics(self) -> list[dict[str, Any]]:
        """As PutMetricData takes them; the names are of SageMaker's developer guide."""
        counts = {
            "Invocations": 1,
            "Invocation4XXErrors": int(400 <= self.status < 500),
            "Invocation5XXErrors": int(self.status >= 500 or self.status == 0),
        }
        measured = [self._metric(name, value=value, unit="Count") for name, value in counts.items()]
        latency = self._metric("ModelLatency", value=self.model_microseconds, unit="Microseconds")
        return [*measured, latency]

    def _metric(self, name: str, *, value: float, unit: str) -> dict[str, Any]:
        dimensions = {"EndpointName": self.endpoint, "VariantName": self.variant}
        return {
            "MetricName": name,
            "Dimensions": [{"Name": key, "Value": text} for key, text in dimensions.items()],
            "Timestamp": self.time,
            "Value": value,
            "Unit": unit,
        }


class Measurements:
    """Takes invocations from the threads that answer them, and writes them from its own."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._waiting: queue.SimpleQueue[Invocation] = queue.SimpleQueue()
        state.start(self._write_all, name="measurements")

    def note(self, endpoint: str, *, variant: str, status: int, seconds: float) -> None:
        """Take in how a request was answered."""
        self._waiting.put(Invocation(endpoint, variant, status, seconds * 1e6, now()))

    def _write_all(self) -> None:
        while not self._state.ending.is_set():
            try:
                metrics = self._waiting.get(timeout=_SECONDS_BETWEEN_LOOKS).metrics()
            except queue.Empty:
                continue
            while not self._waiting.empty() and len(metrics) < _METRICS_PER_CALL:
                metrics += self._waiting.get().metrics()
            self._state.clients["cloudwatch"].put_metric_data(
                Namespace=NAMESPACE, MetricData=metrics
            )


def measurements(state: State) -> Measurements:
    """The one of this emulator."""
    with state.lock:
        kept = state.kept(Measurements)
        if "all" not in kept:
            kept["all"] = Measurements(state)
        return kept["all"]


# --- invocations ---

MAX_BYTES = 6291456
MAX_BYTES_SERVERLESS = 4 * 2**20

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
    maximum_bytes: int = MAX_BYTES,
    seconds: float = INVOCATION_SECONDS,
) -> Outcome:
    """Send a request to one of the endpoint's containers. Raises AwsError, ModelError."""
    fleet, variant = _destination(endpoint_name, inference=inference, state=state)
    try:
        limit = min(maximum_bytes, MAX_BYTES_SERVERLESS) if variant.serverless else maximum_bytes
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
