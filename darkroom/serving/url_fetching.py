"""Fetching images that callers name by URL, without being led to where they cannot go.

What is checked is the address that is about to be connected to, in the hook that makes the
socket: names that resolve differently the second time, decimal and octal forms of addresses
and the like then need no special care. Everything else (scheme, port, credentials, allowed
hosts) is checked for the URL and again for each redirect.
"""

import asyncio
import socket
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import aiohttp
from pydantic import BaseModel, ConfigDict, Field
from yarl import URL

from darkroom.images import ImageError
from darkroom.serving.addresses import is_public
from darkroom.serving.allowed_hosts import HostPattern, is_among
from darkroom.serving.limits import LONGEST_URL
from darkroom.serving.look_ups import LookUps

_CHUNK_BYTES = 2**16
_REDIRECTS = (301, 302, 303, 307, 308)
_HEADERS: Mapping[str, str] = {
    "Accept": "image/*",
    "Accept-Encoding": "identity",  # what is packed could unpack to anything
    "User-Agent": "darkroom",
}


class UrlRefusedError(ImageError):
    """A URL that is not fetched, or that no image came from; the message says why."""


class UrlPolicy(BaseModel):
    """What is fetched."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    allowed_hosts: tuple[HostPattern, ...] = ()
    """Names, or `*.` and a domain whose subdomains are meant; empty: every public host."""
    https_only: bool = False
    maximum_bytes: Annotated[int, Field(gt=0)] = 6 * 2**20
    seconds: Annotated[float, Field(gt=0)] = 10
    """For everything: names, connections, redirects and the body."""
    maximum_redirects: Annotated[int, Field(ge=0)] = 3
    ports: tuple[int, ...] = (80, 443)


class UrlFetcher:
    """Fetches by a policy. Every URL has a connection of its own: no cookies, no reuse.

    Args:
        is_allowed: judges an address before it is connected to.
    """

    def __init__(self, policy: UrlPolicy, *, is_allowed: Callable[[str], bool] = is_public) -> None:
        self._policy = policy
        self._is_allowed = is_allowed
        self._look_ups = LookUps()

    async def fetch(self, url: str) -> bytes:
        """The body of a 2xx answer.

        Raises:
            UrlRefusedError: not allowed, not reachable, too large, too slow, or no answer.
        """
        refusals: list[str] = []

        def make_socket(info: tuple[Any, ...]) -> socket.socket:
            family, kind, protocol, _, address = info
            if not self._is_allowed(address[0]):
                refusals.append(address[0])
                raise OSError("not a public address")
            return socket.socket(family, kind, protocol)

        try:
            async with (
                asyncio.timeout(self._policy.seconds),
                _session(make_socket, look_ups=self._look_ups) as session,
            ):
                return await self._follow(session, url=_parsed(url))
        except TimeoutError as error:
            raise UrlRefusedError(f"not fetched within {self._policy.seconds:g} s") from error
        except aiohttp.InvalidURL as error:  # such as 127.1, before anything is looked up
            raise UrlRefusedError("this is no valid URL") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if refusals:  # which one is not the caller's to know
                raise UrlRefusedError("the URL leads to an address that is not public") from error
            raise UrlRefusedError("cannot be fetched: no usable answer") from error

    async def _follow(self, session: aiohttp.ClientSession, *, url: URL) -> bytes:
        for _ in range(self._policy.maximum_redirects + 1):
            self._check(url)
            async with session.get(url, allow_redirects=False) as response:
                if response.status not in _REDIRECTS:
                    return await self._read(response)
                url = url.join(_parsed(response.headers.get("Location", "")))
        raise UrlRefusedError(f"more than {self._policy.maximum_redirects} redirects")

    def _check(self, url: URL) -> None:
        """Everything about a URL but the address that its host has."""
        policy = self._policy
        schemes = ("https",) if policy.https_only else ("http", "https")
        if url.scheme not in schemes:
            raise UrlRefusedError(
                f"the scheme {url.scheme!r:.40} is not fetched; accepted: {', '.join(schemes)}"
            )
        if url.raw_user is not None or url.raw_password is not None:
            raise UrlRefusedError("URLs with credentials are not fetched")
        if url.port not in policy.ports:
            ports = ", ".join(map(str, policy.ports))
            raise UrlRefusedError(f"port {url.port} is not fetched from; accepted: {ports}")
        if not url.host:
            raise UrlRefusedError("the URL names no host")
        if policy.allowed_hosts and not is_among(policy.allowed_hosts, host=url.raw_host or ""):
            raise UrlRefusedError(
                f"the host {url.host!r:.100} is not among those that images are fetched from"
            )

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        if not 200 <= response.status < 300:
            raise UrlRefusedError(f"cannot be fetched: HTTP status {response.status}")
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise UrlRefusedError("the answer is packed, which was not asked for")
        too_large = UrlRefusedError(f"larger than {self._policy.maximum_bytes:,} bytes")
        if (response.content_length or 0) > self._policy.maximum_bytes:
            raise too_large
        body = bytearray()
        async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
            body += chunk
            if len(body) > self._policy.maximum_bytes:
                raise too_large
        return bytes(body)


def _session(
    make_socket: Callable[[tuple[Any, ...]], socket.socket], *, look_ups: LookUps
) -> aiohttp.ClientSession:
    """For one URL: no proxies or netrc of the environment, no cookies, nothing unpacked."""
    connector = aiohttp.TCPConnector(
        socket_factory=make_socket,
        resolver=look_ups,
        force_close=True,
        use_dns_cache=False,
        limit=1,
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,
        headers=_HEADERS,
        timeout=aiohttp.ClientTimeout(total=None),
        requote_redirect_url=False,
    )


def _parsed(text: str) -> URL:
    if len(text) > LONGEST_URL:
        raise UrlRefusedError(f"a URL of {len(text):,} characters; at most {LONGEST_URL:,}")
    if not text.isprintable() or "\\" in text or text != text.strip():
        raise UrlRefusedError("the URL holds characters that no URL has")
    try:
        url = URL(text)
        _ = url.port, url.host
    except ValueError as error:
        raise UrlRefusedError("this is no valid URL") from error
    return url.with_fragment(None)
