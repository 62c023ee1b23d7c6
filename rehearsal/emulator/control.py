"""The emulator's own pages below /_rehearsal/.

GET    /_rehearsal/records        what happened: records.Records
GET    /_rehearsal/faults         the faults that are set
POST   /_rehearsal/faults         set one, or a list of them: faults.py
DELETE /_rehearsal/faults         clear them
GET    /_rehearsal/credentials    the role's keys, for containers
GET    /_rehearsal/health         "ok"
"""

import json
from datetime import timedelta

from werkzeug.wrappers import Request, Response

from rehearsal.emulator.clients import JOB_KEY
from rehearsal.emulator.errors import invalid
from rehearsal.emulator.faults import parse_fault
from rehearsal.emulator.operations import route
from rehearsal.emulator.records import records
from rehearsal.emulator.state import State, now

_JSON = "application/json"


@route("GET", "/_rehearsal/health")
def health(call: Request, *, state: State) -> Response:
    """Whether the emulator answers yet."""
    return Response("ok")


@route("GET", "/_rehearsal/records")
def show_records(call: Request, *, state: State) -> Response:
    """What happened until now."""
    return Response(records(state).model_dump_json(indent=2), content_type=_JSON)


@route("GET", "/_rehearsal/faults")
def show_faults(call: Request, *, state: State) -> Response:
    """The faults that are set, with the times that are left."""
    return Response(json.dumps(state.faults.shown()), content_type=_JSON)


@route("POST", "/_rehearsal/faults")
def set_faults(call: Request, *, state: State) -> Response:
    """Set one fault, or several; none where one is wrong."""
    try:
        content = json.loads(call.get_data())
        wanted = [
            parse_fault(item) for item in (content if isinstance(content, list) else [content])
        ]
    except ValueError as error:
        raise invalid(str(error)) from error
    for fault in wanted:
        state.faults.add(fault)
    return show_faults(call, state=state)


@route("DELETE", "/_rehearsal/faults")
def clear_faults(call: Request, *, state: State) -> Response:
    """Set none."""
    state.faults.clear()
    return show_faults(call, state=state)


@route("GET", "/_rehearsal/credentials")
def job_credentials(call: Request, *, state: State) -> Response:
    """What a container's credential provider asks for: the role's keys, for an hour."""
    answer = {
        "AccessKeyId": JOB_KEY,
        "SecretAccessKey": "rehearsal",
        "Token": "rehearsal",
        "Expiration": (now() + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return Response(json.dumps(answer), content_type=_JSON)
