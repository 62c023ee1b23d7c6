"""Which request goes where.

/_rehearsal/…                   records, faults, credentials of jobs: control.py
X-Amz-Target: SageMaker.…       checked; then our operation, or moto where it may, or refused
a path that is registered       ours (sagemaker-runtime)
anything else                   moto: S3, logs, IAM, STS, ECR, CloudWatch, …
"""

import json
import socket
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from werkzeug.wrappers import Request, Response

from rehearsal.emulator.admission import admit
from rehearsal.emulator.calls import Call
from rehearsal.emulator.errors import AwsError, LostConnection, not_executed
from rehearsal.emulator.moto_side import Moto
from rehearsal.emulator.operations import answer_route, event_of, operation_named
from rehearsal.emulator.state import State
from rehearsal.emulator.validation import check_request

_TARGET = "SageMaker."
_LONGEST_WAIT_SECONDS = 20
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
                event.wait(_LONGEST_WAIT_SECONDS)
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
