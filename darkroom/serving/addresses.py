"""Which addresses are public: the only ones that a server fetches from for its callers."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

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
