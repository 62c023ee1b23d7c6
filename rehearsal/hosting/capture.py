"""Data capture: requests and answers as JSON lines in S3, in SageMaker's layout.

    <DestinationS3Uri>/<endpoint>/<variant>/<yyyy>/<mm>/<dd>/<hh>/<mm-ss-mmm-id>.jsonl

AWS collects some requests in a file; here every request is a file of its own.
"""

import base64
import json
import random
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rehearsal.emulator.state import State, now
from rehearsal.s3_uris import split_uri


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
