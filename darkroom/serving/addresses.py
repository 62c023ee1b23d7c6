"""Which addresses are public: the only ones that a server fetches from for its callers."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

_NAT64 = IPv6Network("64:ff9b::/96")
"""RFC 6052: the last 32 bits are the IPv4 address that a gateway connects to."""

_IPV4_COMPATIBLE = IPv6Network("::/96")
"""RFC 4291, 2.5.5.1, deprecated; ::1 and :: lie in it."""

_NEVER = tuple(
    IPv6Network(text)
    for text in (
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
        if address.scope_id is not None or any(address in network for network in _NEVER):
            return False
        address = _embedded(address) or address
    return address.is_global and not (
        address.is_multicast
        or address.is_reserved
        or address.is_loopback
        or address.is_link_local
        or address.is_unspecified
    )


def _embedded(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that it stands for."""
    if address in _NAT64 or address in _IPV4_COMPATIBLE:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour
