"""Who may call: jobs are programs that run as the user, so not everybody on this machine.

Signatures are not verified, but the access key that requests are signed with has to be one
that this emulator was given or has made: it is known to whoever started it, and to its jobs.
"""

import hmac
from typing import Any
from urllib.parse import parse_qs

from rehearsal.emulator.calls import Call
from rehearsal.emulator.clients import INTERNAL_KEY, JOB_KEY
from rehearsal.emulator.errors import AwsError

ACCESS_KEY = "REHEARSAL_ACCESS_KEY"
"""The environment variable that tells the emulator's program the user's key."""
_OPEN = ("/_rehearsal/health",)


def admit(call: Call, *, environ: dict[str, Any], access_key: str) -> None:
    """Refuse strangers.

    Args:
        access_key: of the user; empty: everybody is let in.

    Raises:
        AwsError: the request is signed with no key, or one that is not known.
    """
    if not access_key or call.path in _OPEN:
        return
    known = (access_key, INTERNAL_KEY, JOB_KEY)
    if not any(hmac.compare_digest(_key(call, environ=environ), key) for key in known):
        raise AwsError(
            "UnrecognizedClientException",
            "The security token included in the request is invalid.",
            status=403,
        )


def _key(call: Call, *, environ: dict[str, Any]) -> str:
    """The key of a signed request, of a presigned URL, or a bearer token of our own pages."""
    if call.access_key:
        return call.access_key
    bearer: str = environ.get("HTTP_AUTHORIZATION", "").removeprefix("Bearer ")
    if call.path.startswith("/_rehearsal/"):
        return bearer
    query = parse_qs(environ.get("QUERY_STRING", ""))
    presigned: list[str] = query.get("X-Amz-Credential") or query.get("AWSAccessKeyId") or [""]
    return presigned[0].partition("/")[0]
