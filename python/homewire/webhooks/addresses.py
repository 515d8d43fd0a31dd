"""Which addresses a webhook may be on: those of the public internet, unless a setting allows others.

What counts is the address that is connected to, looked at when its socket is made: a name may resolve to
one thing when it is registered and to another later, and an address in a URL is never resolved at all.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Any, Final

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
"""All of IPv6 that was ever given out."""
_NOT_GLOBAL: Final = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24", "3fff::/20")))
"""What `ipaddress` of Python 3.11 does not know of."""
_LOW: Final = 2**32
"""`::a.b.c.d`, IPv4-compatible addresses, are below it."""


class AddressRefused(OSError):
    """It is not to be connected to. Says nothing of which one it is: names would tell of the inside."""

    def __init__(self) -> None:
        super().__init__("the address is not a public one")


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet, also if it is IPv4 in the clothes of IPv6."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address):
        inner = _inner(parsed)
        if parsed.scope_id is not None or (inner is None and parsed not in _UNICAST):
            return False
        parsed = inner or parsed
    known = parsed.is_global and not parsed.is_multicast and not parsed.is_reserved
    return known and not any(parsed in network for network in _NOT_GLOBAL)


def public_socket(address_info: tuple[Any, ...]) -> socket.socket:
    """A socket for an address of `getaddrinfo`. Raises AddressRefused unless it is public."""
    family, kind, protocol, _, address = address_info
    if not is_public(address[0]):
        raise AddressRefused
    return socket.socket(family, kind, protocol)


def _inner(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that a packet to this one ends at: mapped, compatible, NAT64 or 6to4."""
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) % _LOW)
    if 1 < int(address) < _LOW:
        return ipaddress.IPv4Address(int(address))
    return address.ipv4_mapped or address.sixtofour
