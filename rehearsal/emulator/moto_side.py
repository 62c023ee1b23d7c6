"""moto, and which SageMaker operations it may answer.

moto answers many operations by pretending: a compilation job is Completed as soon as it is
created. Where only something is kept and shown again, that is the truth; those operations
are listed here, by what they act on. All others are refused.
"""

import io
import json
from collections.abc import Iterable, Mapping
from typing import Any

from rehearsal.emulator.errors import AwsError, not_executed
from rehearsal.emulator.log_filters import FILTER_LOG_EVENTS, named_streams
from rehearsal.emulator.state import State

_KEPT_BY_MOTO = (
    "Pipeline",
    "Pipelines",
    "PipelineDefinitionForExecution",
    "Tags",
    "Experiment",
    "Experiments",
    "Trial",
    "Trials",
    "TrialComponent",
    "TrialComponents",
    "ModelCard",
    "ModelCards",
    "ModelCardVersions",
    "FeatureGroup",
    "Domain",
    "Domains",
)
_VERBS = (
    "BatchDescribe",
    "Associate",
    "Disassociate",
    "Create",
    "Describe",
    "Delete",
    "Update",
    "List",
    "Add",
)


class Moto:
    """moto's applications, made when they are first asked."""

    def __init__(self, state: State) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

        self._application = DomainDispatcherApplication(create_backend_app)
        self._state = state

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:  # noqa: ANN401
        answer: Iterable[bytes] = self._application(environ, start_response)
        return answer

    def read_json(self, environ: dict[str, Any]) -> dict[str, Any]:
        """The body of a JSON request; moto can still read it afterwards."""
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        try:
            content = json.loads(body or b"{}")
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise AwsError("SerializationException", "the request is no JSON object")
        return content

    def complete(self, environ: dict[str, Any]) -> None:
        """Put into a request to another service what moto would leave out."""
        if environ.get("HTTP_X_AMZ_TARGET") == FILTER_LOG_EVENTS:
            request = named_streams(self.read_json(environ), state=self._state)
            body = json.dumps(request).encode()
            environ["wsgi.input"] = io.BytesIO(body)
            environ["CONTENT_LENGTH"] = str(len(body))

    def check_may_answer(self, operation: str, *, request: Mapping[str, Any]) -> None:
        """Refuse what moto would only pretend to do.

        Raises:
            AwsError: what is refused, and why.
        """
        if not is_kept_by_moto(operation):
            raise not_executed(operation, why="there is nothing here that could do it")


def is_kept_by_moto(operation: str) -> bool:
    """Whether an operation only keeps something and shows it, so that moto does it truly."""
    return _object_of(operation) in _KEPT_BY_MOTO


def _object_of(operation: str) -> str:
    for verb in _VERBS:
        if operation.startswith(verb):
            return operation.removeprefix(verb)
    return operation
