"""Which web pages and host names a server answers to.

A page of any site may send requests to a server on its visitor's machine, and, once its name
is made to resolve to that machine (DNS rebinding), read the answers. Both show: browsers say
which page asks (Origin, Sec-Fetch-Site), and under which name (Host). Programs send no Origin
and the name they were given, so that nothing changes for them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

# --- allowed hosts ---
# The hosts that images may be fetched from, where an operator limits them.

_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_PATTERN = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*")


def is_among(patterns: Sequence[str], *, host: str) -> bool:
    """Whether a host, as it is looked up (in ASCII), is one of those.

    `*.example.com` means every name below example.com, and not that name itself.
    """
    host = host.lower().removesuffix(".")
    return any(
        host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern
        for pattern in patterns
    )


def checked_pattern(pattern: str) -> str:
    """Check a pattern, and write it in small letters.

    What could never match would silently let nothing through.
    """
    pattern = pattern.lower().removesuffix(".")
    if not _PATTERN.fullmatch(pattern):
        raise PydanticCustomError(
            "host_pattern",
            "a host is a name such as 'images.example.com', or '*.example.com' for all below "
            "it, without scheme, port and path; other alphabets in their xn-- form",
        )
    return pattern


HostPattern = Annotated[str, AfterValidator(checked_pattern)]


# --- origins ---

ANY = "*"
_FROM_ELSEWHERE = frozenset(("cross-site", "same-site"))
_HOST = re.compile(r"(?P<name>\[[0-9a-fA-F:.]+\]|[^\s\[\]:/@?#\\]*)(:[0-9]*)?", re.ASCII)
"""RFC 9110, 7.2: nothing but a name or an address, and a port."""


def _checked(pattern: str) -> str:
    return ANY if pattern == ANY else checked_pattern(pattern)


ServedHost = Annotated[str, AfterValidator(_checked)]
"""A host name as `HostPattern`, or `*` for all."""


@dataclass(frozen=True)
class OriginPolicy:
    """What is let through."""

    hosts: Sequence[str] = ()
    """Names that the server has beside those of its machine; `*`: whatever a client says."""
    is_local: bool = False
    """Whether it listens to its own machine alone, and so has no other names."""

    def problem(self, headers: Headers, *, method: str) -> str:
        """Why a request is refused; empty: it is not."""
        if ANY in self.hosts:
            return ""
        wrong = [value for value in headers.getlist("host") if not self._is_own(_host(value))]
        if (self.is_local or self.hosts) and wrong:
            return f"the host {wrong[0]!r:.100} is not this server's (--allowed-hosts)"
        for origin in headers.getlist("origin"):
            if not self._is_own_page(origin, host=headers.get("host", "")):
                return f"pages of {origin!r:.100} may not ask this server (--allowed-hosts)"
        sites = [site.lower() for site in headers.getlist("sec-fetch-site")]
        is_elsewhere = not _FROM_ELSEWHERE.isdisjoint(sites)
        is_visit = method in ("GET", "HEAD") and headers.get("sec-fetch-mode") == "navigate"
        if is_elsewhere and not is_visit and "origin" not in headers:
            return "pages of other sites may not ask this server (--allowed-hosts)"
        return ""

    def _is_own(self, host: str) -> bool:
        return _is_of_this_machine(host) or is_among(self.hosts, host=host)

    def _is_own_page(self, origin: str, *, host: str) -> bool:
        """Whether it is a page of this server, or of a host that is named as allowed.

        A page whose origin equals the Host may have been rebound to here, unless the name is
        an address, which nobody can rebind.
        """
        try:
            found = urlsplit(origin)
            name = found.hostname or ""
        except ValueError:
            return False
        if is_among(self.hosts, host=name):
            return True
        is_same = found.netloc.lower() == host.lower() and found.scheme in ("http", "https")
        return is_same and (_is_of_this_machine(name) or _is_address(name))


class OriginCheck:
    """ASGI middleware: 403 for what the policy refuses."""

    def __init__(self, app: ASGIApp, *, policy: OriginPolicy) -> None:
        self._app = app
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse it."""
        app = self._app
        if scope["type"] == "http":
            problem = self._policy.problem(Headers(scope=scope), method=scope["method"])
            if problem:
                app = JSONResponse({"error": problem}, status_code=403)
        await app(scope, receive, send)


def _host(value: str) -> str:
    """The name of a Host header, without its port; empty where it is no name."""
    found = _HOST.fullmatch(value)
    return found["name"].strip("[]").lower() if found else ""


def _is_of_this_machine(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761, 6.3
        return True
    return _is_address(host) and ip_address(host).is_loopback


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
