"""moto: which services, and which of SageMaker's operations, it may answer.

moto answers many operations by pretending: a compilation job is Completed as soon as it is
created. Where only something is kept and shown again, that is the truth; those services and
operations are listed here. All others are refused, whatever way a request comes: moto chooses
its backend by headers, paths and bodies, so each backend is guarded where it is made.
"""

import io
import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qs

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


_SERVICES = (
    "account",
    "applicationautoscaling",
    "cloudwatch",
    "ec2",
    "ecr",
    "events",
    "iam",
    "kms",
    "logs",
    "resourcegroups",
    "resourcegroupstaggingapi",
    "s3",
    "s3control",
    "scheduler",
    "secretsmanager",
    "servicequotas",
    "sns",
    "sqs",
    "ssm",
    "sts",
)
"""moto's names of the services that only keep what they are told, and show it.

Not CloudFormation: it creates resources in moto past every check, and reads templates with a
YAML loader that runs what they say. Not Step Functions, Batch, Lambda, Glue, CodeBuild, …: they
pretend to run something, or run it outside the walls. Not moto's own pages, which empty S3.
"""
_PRETENDED = {
    "ec2": ("RunInstances", "CreateFleet", "RequestSpotInstances", "RequestSpotFleet"),
    "ssm": ("SendCommand", "StartAutomationExecution", "StartSession"),
    # moto would post to whatever address was subscribed, also for notifications of S3.
    "sns": ("Publish", "PublishBatch", "Subscribe"),
}
"""Operations of those services that would start something, or tell somebody."""
_MAY_ANSWER = "rehearsal.may_answer"
"""In the environment of a SageMaker request that was checked and is left to moto."""


class Moto:
    """moto's applications, made when they are first asked."""

    def __init__(self, state: State) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication

        self._application = DomainDispatcherApplication(_backend)
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

    def allow(self, operation: str, *, environ: dict[str, Any]) -> None:
        """Let moto answer a SageMaker request that has been checked.

        Raises:
            AwsError: it would only pretend to do this operation.
        """
        if not is_kept_by_moto(operation):
            raise not_executed(operation, why="there is nothing here that could do it")
        environ[_MAY_ANSWER] = True


def is_kept_by_moto(operation: str) -> bool:
    """Whether moto has an operation that only keeps something and shows it."""
    from moto.core.utils import camelcase_to_underscores
    from moto.sagemaker.responses import SageMakerResponse

    has_it = hasattr(SageMakerResponse, camelcase_to_underscores(operation))
    return has_it and _object_of(operation) in _KEPT_BY_MOTO


def _backend(service: Any) -> Any:  # noqa: ANN401  moto's type is a list of all its names
    """The WSGI application of one of moto's services, or one that refuses."""
    from moto.moto_server.werkzeug_app import create_backend_app

    if service == "sagemaker":
        inner = create_backend_app(service)

        def guarded(environ: dict[str, Any], start_response: Any) -> Any:  # noqa: ANN401
            if not environ.get(_MAY_ANSWER):
                raise not_executed(
                    "This SageMaker request",
                    why="X-Amz-Target does not name an operation as `SageMaker.<operation>`",
                )
            return inner(environ, start_response)

        return guarded
    if service in _SERVICES:
        application = create_backend_app(service)
        refused = _PRETENDED.get(service)
        return application if refused is None else _without(refused, application=application)

    def refusing(environ: dict[str, Any], start_response: Any) -> Any:  # noqa: ANN401
        raise not_executed(
            f"The service {service!r}", why="it would only be pretended, or run outside the walls"
        )

    return refusing


def _without(operations: tuple[str, ...], *, application: Any) -> Any:  # noqa: ANN401
    """An application of a service, of the query or the JSON protocol, without some operations."""

    def guarded(environ: dict[str, Any], start_response: Any) -> Any:  # noqa: ANN401
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        query = environ.get("QUERY_STRING", "")
        asked = {*parse_qs(body.decode(errors="replace")).get("Action", ())}
        asked |= {*parse_qs(query).get("Action", ())}
        asked.add(environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2])
        for name in sorted(asked.intersection(operations)):
            raise not_executed(name, why="nothing is started, and nobody told")
        return application(environ, start_response)

    return guarded


def _object_of(operation: str) -> str:
    for verb in _VERBS:
        if operation.startswith(verb):
            return operation.removeprefix(verb)
    return operation
