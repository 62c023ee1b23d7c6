"""What can be told of a request without reading its body."""

import hmac
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from rehearsal.emulator.clients import INTERNAL_KEY, JOB_KEY
from rehearsal.emulator.errors import AwsError

# --- calls ---

_CREDENTIAL = re.compile(r"Credential=([^/]+)/\d*/[^/]*/([^/]+)/aws4_request")

_WAITER = re.compile(r"\bm/(?:[^ ]*,)?B(?:,|\s|$)")
"""botocore tells the features that a call uses in its user agent; B is a waiter."""
_SERVICES = {"monitoring": "cloudwatch"}
"""Services that sign with another name than SDKs know them by."""
_XML = (
    "autoscaling",
    "cloudformation",
    "cloudfront",
    "ec2",
    "elasticache",
    "elasticbeanstalk",
    "elasticloadbalancing",
    "iam",
    "rds",
    "redshift",
    "route53",
    "s3",
    "sdb",
    "ses",
    "sns",
    "sts",
)
"""Services whose answers are XML."""


@dataclass(frozen=True)
class Call:
    """One request to the emulator."""

    service: str
    """As SDKs name it: "s3", "sagemaker", "logs"; empty where nothing is signed."""
    operation: str
    """Of SageMaker and other JSON services its name, else the HTTP method and path."""
    target: str
    """X-Amz-Target, or empty."""
    access_key: str
    path: str
    protocol: str = "json"
    """Of errors: "json", "xml" or "cbor"."""
    waits: bool = False
    """Whether a waiter of an SDK calls, which does nothing else but wait."""

    @classmethod
    def of(cls, environ: dict[str, Any]) -> "Call":
        """Read the headers of a WSGI request."""
        signature = _CREDENTIAL.search(environ.get("HTTP_AUTHORIZATION", ""))
        key, signed = signature.groups() if signature else ("", "")
        service = _SERVICES.get(signed, signed)
        target = environ.get("HTTP_X_AMZ_TARGET", "")
        path = environ.get("PATH_INFO", "/")
        method = environ.get("REQUEST_METHOD", "GET")
        operation = target.partition(".")[2] or _path_operation(service, method, path)
        cbor = "HTTP_SMITHY_PROTOCOL" in environ
        json = target or service not in _XML
        protocol = "cbor" if cbor else "json" if json else "xml"
        waits = bool(_WAITER.search(environ.get("HTTP_USER_AGENT", "")))
        return cls(service, operation, target, key, path, protocol, waits)

    @property
    def internal(self) -> bool:
        """Whether the emulator itself calls."""
        return self.access_key == INTERNAL_KEY


def _path_operation(service: str, method: str, path: str) -> str:
    if path.startswith("/_rehearsal/"):
        return path
    if path.endswith("/invocations"):
        return "InvokeEndpoint"
    if "/operation/" in path:
        return path.rpartition("/")[2]
    if service != "s3":
        return method
    has_key = path.strip("/").count("/") > 0
    return f"{method} {'object' if has_key else 'bucket'}"


# --- admission ---
# Who may call: jobs are programs that run as the user, so not everybody on this machine.
#
# Signatures are not verified, but the access key that requests are signed with has to be one
# that this emulator was given or has made: it is known to whoever started it, and to its jobs.

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
