"""Fetch images that callers name by URL, without being led to where they cannot go."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from threading import Thread
from typing import Annotated, Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from pydantic import BaseModel, ConfigDict, Field
from yarl import URL

from darkroom.images import ImageError
from darkroom.serving.limits import MAX_URL
from darkroom.serving.origins import HostPattern, is_among

# --- addresses ---
# Which addresses are public: the only ones that a server fetches from for its callers.

_NAT64 = ip_network("64:ff9b::/96")
"""RFC 6052: the last 32 bits are the IPv4 address that a gateway connects to."""

_IPV4_COMPATIBLE = ip_network("::/96")
"""RFC 4291, 2.5.5.1, deprecated; ::1 and :: lie in it."""

_NEVER = tuple(
    ip_network(text)
    for text in (
        "192.0.0.0/24",  # RFC 6890; Oracle's metadata is in it, and older Pythons call it global
        "192.88.99.0/24",  # RFC 7526: relays of 6to4, deprecated
        "168.63.129.16/32",  # Azure's own services for each of its machines
        "3fff::/20",  # RFC 9637: documentation
        "64:ff9b:1::/48",  # RFC 8215: translation within a network of one's own
        "2001::/32",  # Teredo: the addresses of its servers and clients are encoded in it
        "fec0::/10",  # site-local, deprecated, still routed by some
    )
)


def is_public(text: str) -> bool:
    """Whether an IP address, as `getaddrinfo` gives it, is one of the public internet's.

    IPv4 addresses inside IPv6 ones are judged as what they lead to.
    """
    address: IPv4Address | IPv6Address = ip_address(text)
    if isinstance(address, IPv6Address):
        if address.scope_id is not None or _is_never(address):
            return False
        address = _embedded(address) or address
    return address.is_global and not (
        _is_never(address)
        or address.is_multicast
        or address.is_reserved
        or address.is_loopback
        or address.is_link_local
        or address.is_unspecified
    )


def _is_never(address: IPv4Address | IPv6Address) -> bool:
    return any(address in network for network in _NEVER)


def _embedded(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that it stands for."""
    if address in _NAT64 or address in _IPV4_COMPATIBLE:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


# --- name resolution ---
# Looking up names so that one that never answers holds up nothing but its own request.
#
# A look-up of the C library cannot be ended: with the defaults of resolv.conf it may take half
# a minute. In the event loop's own few threads it would delay other look-ups, and the end of
# the server. So each has a thread that nobody waits for at the end.

_RESOLVED_AT_ONCE = 32
"""Threads; who comes later waits for one, as long as its request may take."""

_NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV


class LookUps(AbstractResolver):
    """A resolver for aiohttp, to be shared by all requests of one event loop."""

    def __init__(self) -> None:
        self._turn = asyncio.Semaphore(_RESOLVED_AT_ONCE)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """All addresses of a name.

        Raises:
            OSError: it has none, or nobody says so.
        """
        await self._turn.acquire()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[Any]] = loop.create_future()

        def finish(found: list[Any] | Exception) -> None:
            self._turn.release()  # only now: a request that gave up leaves its thread behind
            if answer.cancelled():
                return
            if isinstance(found, Exception):
                answer.set_exception(found)
            else:
                answer.set_result(found)

        def look_up() -> None:
            found = _addresses(host, port=port, family=family)
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(finish, found)

        Thread(target=look_up, name="look-up", daemon=True).start()
        return [_result(found, host=host, port=port) for found in await answer]

    async def close(self) -> None:
        """Nothing is held open."""


def _addresses(host: str, *, port: int, family: int) -> list[Any] | Exception:
    kind, flags = socket.SOCK_STREAM, socket.AI_ADDRCONFIG
    try:
        return socket.getaddrinfo(host, port, family=family, type=kind, flags=flags)
    except (OSError, ValueError) as error:  # ValueError: no name can be written so
        return error


def _result(found: tuple[Any, ...], *, host: str, port: int) -> ResolveResult:
    family, _, protocol, _, address = found
    return ResolveResult(
        hostname=host, host=address[0], port=port, family=family, proto=protocol, flags=_NUMERIC
    )


# --- fetching of URLs ---

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
    if len(text) > MAX_URL:
        raise UrlRefusedError(f"a URL of {len(text):,} characters; at most {MAX_URL:,}")
    if not text.isprintable() or "\\" in text or text != text.strip():
        raise UrlRefusedError("the URL holds characters that no URL has")
    try:
        url = URL(text)
        _ = url.port, url.host
    except ValueError as error:
        raise UrlRefusedError("this is no valid URL") from error
    return url.with_fragment(None)
