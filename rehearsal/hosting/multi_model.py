"""Multi-model containers: TargetModel, by SageMaker's contract of the /models API.

    POST   /models                    {"model_name": …, "url": folder}: load; 507: no memory
    POST   /models/<name>/invoke      as /invocations
    DELETE /models/<name>             unload

SageMaker brings a model's archive to the instance when it is first asked for, and has the
container load it under a name of SageMaker's own (developer guide, "Container Contract for
Multi-Model Endpoints"). When the container has no memory left, others are unloaded.
"""

import hashlib
import json
from collections.abc import Mapping

from botocore.exceptions import ClientError

from rehearsal.emulator.errors import AwsError
from rehearsal.emulator.state import State
from rehearsal.hosting.model_data import ModelDataError, fetch_archive
from rehearsal.hosting.model_errors import model_error
from rehearsal.hosting.servers import Answer, ModelServer

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
