"""How a transform job asks the container: as requested, else as the container wishes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rehearsal.hosting.servers import ModelServer, NoAnswerError

_MAXIMUM_MEGABYTES = 6
_RETRIES = 3
_SECONDS = 600
"""All three are CreateTransformJob's defaults in the API reference."""


@dataclass(frozen=True)
class TransformSettings:
    """Of one job."""

    concurrency: int
    maximum_megabytes: int
    strategy: str
    split: str
    assemble_with: str
    retries: int
    seconds: float
    content_type: str
    accept: str

    @classmethod
    def of(cls, request: Mapping[str, Any], *, wishes: Mapping[str, Any]) -> "TransformSettings":
        """Args: wishes: what the container's /execution-parameters answered."""
        asked = {**wishes, **request}
        client = request.get("ModelClientConfig", {})
        return cls(
            concurrency=int(asked.get("MaxConcurrentTransforms") or 1),
            maximum_megabytes=int(asked.get("MaxPayloadInMB", _MAXIMUM_MEGABYTES)),
            strategy=asked.get("BatchStrategy", "MultiRecord").replace("_", ""),
            split=request["TransformInput"].get("SplitType", "None"),
            assemble_with=request["TransformOutput"].get("AssembleWith", "None"),
            retries=client.get("InvocationsMaxRetries", _RETRIES),
            seconds=client.get("InvocationsTimeoutInSeconds", _SECONDS),
            content_type=request["TransformInput"].get("ContentType", ""),
            accept=request["TransformOutput"].get("Accept", ""),
        )

    def headers(self) -> dict[str, str]:
        """Of every request to the container."""
        given = {"Content-Type": self.content_type, "Accept": self.accept}
        return {name: value for name, value in given.items() if value}


def container_environment(request: Mapping[str, Any]) -> dict[str, str]:
    """What SageMaker adds for a batch: the developer guide names these four."""
    given = {
        "SAGEMAKER_MAX_PAYLOAD_IN_MB": request.get("MaxPayloadInMB"),
        "SAGEMAKER_BATCH_STRATEGY": request.get("BatchStrategy"),
        "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": request.get("MaxConcurrentTransforms"),
    }
    told = {name: str(value) for name, value in given.items() if value is not None}
    return {"SAGEMAKER_BATCH": "true", **told, **request.get("Environment", {})}


def wishes_of(server: ModelServer) -> dict[str, Any]:
    """What the container's optional GET /execution-parameters answers."""
    try:
        answer = server.send("GET", path="/execution-parameters", headers={})
        content = json.loads(answer.body) if answer.status == 200 else {}
    except (NoAnswerError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
