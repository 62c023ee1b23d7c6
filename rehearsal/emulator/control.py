"""The emulator's own pages below /_rehearsal/."""

import json
from datetime import timedelta

from werkzeug.wrappers import Request, Response

from rehearsal.emulator.clients import JOB_KEY
from rehearsal.emulator.operations import route
from rehearsal.emulator.state import State, now

CREDENTIALS_PATH = "/_rehearsal/credentials"


@route("GET", CREDENTIALS_PATH)
def job_credentials(call: Request, *, state: State) -> Response:
    """What a container's credential provider asks for: the role's keys, for an hour."""
    answer = {
        "AccessKeyId": JOB_KEY,
        "SecretAccessKey": "rehearsal",
        "Token": "rehearsal",
        "Expiration": (now() + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return Response(json.dumps(answer), content_type="application/json")
