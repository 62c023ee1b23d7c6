"""The emulator as a program, and within a process.

python -m rehearsal.emulator.server --port 0 --folder FOLDER --port-file FILE
"""

import argparse
import io
import json
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from werkzeug.wrappers import Request, Response

from rehearsal.emulator.calls import ACCESS_KEY, Call, admit
from rehearsal.emulator.errors import AwsError, LostConnection, not_executed
from rehearsal.emulator.operations import answer_route, event_of, operation_named
from rehearsal.emulator.state import Settings, State
from rehearsal.emulator.validation import check_request

# --- log filters ---
# FilterLogEvents as CloudWatch answers it; moto knows neither prefixes nor its order.

FILTER_LOG_EVENTS = "Logs_20140328.FilterLogEvents"
_NO_STREAM = ":"
"""No stream can be named so; moto takes an empty list of names for all streams."""


def named_streams(request: Mapping[str, Any], *, state: State) -> dict[str, Any]:
    """The same request with the streams by name, and in CloudWatch's order.

    Raises:
        AwsError: streams are asked for by name and by prefix.
    """
    # Events of several streams always come in the order of their times.
    completed = {**request, "interleaved": True}
    prefix = completed.pop("logStreamNamePrefix", None)
    if prefix is None:
        return completed
    if completed.get("logStreamNames"):
        raise AwsError(
            "InvalidParameterException",
            "logStreamNamePrefix and logStreamNames cannot both be given.",
        )
    names = _stream_names(str(completed.get("logGroupName", "")), state=state)
    chosen = [name for name in names if name.startswith(prefix)]
    return {**completed, "logStreamNames": chosen or [_NO_STREAM]}


def _stream_names(group: str, *, state: State) -> list[str]:
    from moto.logs.models import logs_backends

    groups = logs_backends[state.settings.account][state.settings.region].groups
    return list(groups[group].streams) if group in groups else []


# --- moto side ---
# moto: which services, and which of SageMaker's operations, it may answer.
#
# moto answers many operations by pretending: a compilation job is Completed as soon as it is
# created. Where only something is kept and shown again, that is the truth; those services and
# operations are listed here. All others are refused, whatever way a request comes: moto chooses
# its backend by headers, paths and bodies, so each backend is guarded where it is made.

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


# --- app ---
# Which request goes where.
#
# /_rehearsal/…                   records, faults, credentials of jobs: control.py
# X-Amz-Target: SageMaker.…       checked; then our operation, or moto where it may, or refused
# a path that is registered       ours (sagemaker-runtime)
# anything else                   moto: S3, logs, IAM, STS, ECR, CloudWatch, …

_TARGET = "SageMaker."
_MAX_WAIT_SECONDS = 20
"""Of a waiter's call; SDKs give up a call after 60."""


class Application:
    """The WSGI application of one emulator."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._moto = Moto(state)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:  # noqa: ANN401
        call = Call.of(environ)
        log = self._state.log
        log.count(call)
        try:
            admit(call, environ=environ, access_key=self._state.settings.access_key)
            self._state.faults.strike(call)
            response = self._answer(call, environ=environ)
            if response is None:
                return self._moto(environ, start_response)
        except AwsError as error:
            log.refused(call, error=error)
            response = error.response(protocol=call.protocol)
        except NotImplementedError as error:  # moto's word for an operation that it lacks
            refusal = not_executed(
                f"{call.service} {call.operation}", why=f"it is missing: {error}"
            )
            log.refused(call, error=refusal)
            response = refusal.response(protocol=call.protocol)
        except LostConnection:
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            response = Response(status=500)
        except Exception as error:
            log.broke(call, error=error)
            response = _internal(error).response(protocol=call.protocol)
        return response(environ, start_response)

    def _answer(self, call: Call, *, environ: dict[str, Any]) -> Response | None:
        """The answer, or None where moto gives it."""
        if call.target.startswith(_TARGET):
            return self._sagemaker(call, environ=environ)
        if call.service in ("", "sagemaker"):
            return answer_route(Request(environ), state=self._state)
        self._moto.complete(environ)
        return None

    def _sagemaker(self, call: Call, *, environ: dict[str, Any]) -> Response | None:
        name = call.operation
        request = self._moto.read_json(environ)
        check_request(name, request, state=self._state)
        if function := operation_named(name):
            if call.waits and (event := event_of(name, request, state=self._state)):
                event.wait(_MAX_WAIT_SECONDS)
            if (answer := function(request, state=self._state)) is not None:
                return _json(answer)
        self._moto.allow(name, environ=environ)
        return None


def _json(answer: object) -> Response:
    content = json.dumps(answer, default=_timestamp)
    return Response(content, content_type="application/x-amz-json-1.1")


def _internal(error: Exception) -> AwsError:
    """A mistake of the emulator's; not repeated by SDKs, as it would only happen again."""
    return AwsError("RehearsalFailure", f"a mistake of the rehearsal's: {error!r}")


def _timestamp(value: object) -> float:
    if isinstance(value, datetime):
        return value.timestamp()
    raise TypeError(f"{value!r} cannot be sent")


# --- server ---


@dataclass(frozen=True)
class Running:
    """An emulator that answers."""

    url: str
    state: State

    def client(self, service: str) -> Any:  # noqa: ANN401  boto3 has no types here
        """A boto3 client for it, as a user's: its calls are counted, and met by faults."""
        from rehearsal.emulator.clients import isolated_session

        session = isolated_session("AKIAREHEARSALUSER000")
        return session.client(
            service, endpoint_url=self.url, region_name=self.state.settings.region
        )


@contextmanager
def emulator(
    folder: Path,
    *,
    port: int = 0,
    images: Mapping[str, Path | None] | None = None,
    region: str = "us-east-1",
    **more: Any,  # noqa: ANN401
) -> Iterator[Running]:
    """An emulator in this process, on a free port of loopback.

    Only one at a time: moto's memory belongs to the process; it is emptied at the end.

    Args:
        folder: all that jobs write lies below; made where it is missing.
        images: image URI → folder whose bin/ comes first on the PATH of its containers; None:
            this Python environment. Other images are refused.
        more: other fields of `Settings`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings = Settings(folder=folder.resolve(), images=images or {}, region=region, **more)
    server, state = _server(settings, port=port)
    thread = threading.Thread(target=server.serve_forever, daemon=True, name="emulator")
    thread.start()
    state.start(state.clients.warm, name="clients")
    try:
        yield Running(url=state.url, state=state)
    finally:
        state.end()
        server.shutdown()
        server.server_close()
        thread.join()
        _forget_all()


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM, SIGINT, or until the parent that asked for it is gone."""
    from darkroom.base.processes import end_with_parent

    options = _parser().parse_args(arguments)
    os.environ["MOTO_ACCOUNT_ID"] = options.account
    _keep_large_objects_in(options.folder / "objects")
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    end_with_parent()
    with emulator(
        options.folder,
        port=options.port,
        images={**dict.fromkeys(options.own_image), **dict(options.image)},
        region=options.region,
        account=options.account,
        access_key=options.access_key,
        jobs_at_once=options.jobs_at_once,
        stop_grace_seconds=options.stop_grace_seconds,
        services=tuple(options.service),
        sandboxed=False if options.no_sandbox else None,
    ) as running:
        for fault in options.fault:
            running.state.faults.add(fault)
        _announce(running.url, port_file=options.port_file)
        stopped.wait()
    return 0


def _server(settings: Settings, *, port: int) -> tuple[Any, State]:
    from moto.moto_server.werkzeug_app import MotoRequestHandler
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    os.environ.setdefault("S3_IGNORE_SUBDOMAIN_BUCKETNAME", "true")
    _forget_all()
    holder: list[Application] = []
    server = make_server(
        "127.0.0.1",
        port,
        lambda environ, start: holder[0](environ, start),
        threaded=True,
        request_handler=MotoRequestHandler,
    )

    def answer(connection: socket.socket) -> None:
        server.process_request(connection, ("127.0.0.1", 0))

    state = State(settings, url=f"http://127.0.0.1:{server.server_port}", answer=answer)
    holder.append(Application(state))
    return server, state


def _forget_all() -> None:
    """Empty moto's memory."""
    from moto.moto_api._internal.models import moto_api_backend

    moto_api_backend.reset()


def _keep_large_objects_in(folder: Path) -> None:
    """moto writes large objects to temporary files, which have no names and leave nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.tempdir = str(folder)


def _announce(url: str, *, port_file: Path | None) -> None:
    if port_file is not None:
        temporary = port_file.with_name(f".{port_file.name}.new")
        temporary.write_text(url.rpartition(":")[2], encoding="utf-8")
        temporary.replace(port_file)
    sys.stdout.write(f"rehearsal: AWS is on {url}\n")
    sys.stdout.flush()


def image_option(text: str) -> tuple[str, Path]:
    """The image and the folder that `--image URI=FOLDER` names.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    uri, separator, folder = text.rpartition("=")
    if not uri or not separator or not Path(folder, "bin").is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is not URI=FOLDER with a folder bin/ in it")
    return uri, Path(folder).resolve()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m rehearsal.emulator.server")
    parser.add_argument("--port", type=int, default=0, help="0: any that is free")
    parser.add_argument("--folder", type=Path, required=True, help="all is written below")
    parser.add_argument("--port-file", type=Path, help="where to write the port, once it answers")
    parser.add_argument(
        "--image",
        type=image_option,
        action="append",
        default=[],
        metavar="URI=FOLDER",
        help="FOLDER/bin/train and FOLDER/bin/serve are what a container of this image starts",
    )
    parser.add_argument(
        "--own-image",
        action="append",
        default=[],
        metavar="URI",
        help="the image that this Python environment stands for",
    )
    parser.add_argument("--region", default="us-east-1")
    parser.add_argument("--account", default="123456789012")
    parser.add_argument(
        "--access-key",
        default=os.environ.get(ACCESS_KEY, ""),
        help=f"refuse requests signed with another; or ${ACCESS_KEY}, which nobody else sees",
    )
    parser.add_argument(
        "--jobs-at-once",
        type=int,
        default=0,
        help="0: no limit; a job that waits for others needs a place too",
    )
    parser.add_argument("--stop-grace-seconds", type=float, default=120)
    parser.add_argument(
        "--service",
        action="append",
        default=[],
        metavar="URL",
        help="another server on the loopback, reached by jobs whose request names one of these",
    )
    parser.add_argument("--no-sandbox", action="store_true", help="jobs as plain processes")
    parser.add_argument(
        "--fault", type=_fault, action="append", default=[], metavar="NAME[:key=value,…]"
    )
    return parser


def _fault(text: str) -> Any:  # noqa: ANN401
    from rehearsal.emulator.faults import parse_fault

    try:
        return parse_fault(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


if __name__ == "__main__":
    sys.exit(main())
