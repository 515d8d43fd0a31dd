"""The address of the client that sent a request: that of the TCP peer, or the one that a trusted proxy names.

Only headers of a trusted proxy are read. They are read from the right, because each proxy appends an address,
and everything further left may be forged:

- several header lines are one list, in their order;
- addresses of trusted proxies are passed over, and the first other address is the client's;
- an element without an address (`unknown`, an obfuscated `_name`, an invalid text) ends the search. The
client then has the address of the proxy that wrote the element, and also if the header is missing;
- if all addresses are trusted, the leftmost is the client;
- ports are ignored, IPv6 may stand in brackets, and an IPv4-mapped address is the IPv4 address.

Only the header of the setting `forwarded_header` is read: a proxy passes the other one on unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, Self

from aiohttp import hdrs, web
from multidict import MultiMapping

from homewire.hosts import listed_networks
from homewire.settings import Settings

FORWARDED_PROTO: Final = "X-Forwarded-Proto"
FORWARDED_FOR: Final = "x-forwarded-for"
"""The value of the setting for the header that proxies write by default."""
LONGEST_NODE: Final = 64
"""Characters of the longest address with brackets and port."""
CACHED: Final = 4096
"""Parsed texts of addresses that are cached."""


class TrustedProxies:
    """The proxies of the setting `trusted_proxies`, whose headers are read."""

    def __init__(
        self, networks: Sequence[IPv4Network | IPv6Network] = (), header: str = FORWARDED_FOR
    ) -> None:
        self._networks = tuple(networks)
        self._header = header
        self._parsed = lru_cache(maxsize=CACHED)(self._parse)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The proxies of the settings."""
        return cls(listed_networks(settings.trusted_proxies), settings.forwarded_header)

    def __bool__(self) -> bool:
        return bool(self._networks)

    def trusts(self, address: str) -> bool:
        """Whether the address is of a trusted proxy."""
        return bool(self._networks) and self._parsed(address)[1]

    def peer(self, address: str) -> Peer:
        """The peer of a connection from this address."""
        return Peer(address, self if self.trusts(address) else None)

    def client(self, headers: MultiMapping[str], proxy: str) -> str:
        """The address of the client, from the headers of the trusted `proxy`."""
        found = proxy
        for node in self._nodes(headers):
            address, trusted = self._parsed(node)
            if address is None:
                return found
            found = address
            if not trusted:
                return found
        return found

    def by_https(self, headers: MultiMapping[str]) -> bool:
        """Whether the nearest proxy was reached by https, as its headers have it."""
        if self._header == FORWARDED_FOR:
            scheme = ",".join(headers.getall(FORWARDED_PROTO, ())).rpartition(",")[2]
        else:
            scheme = _parameter(next(_elements(headers), ""), "proto")
        return scheme.strip().lower() == "https"

    def _nodes(self, headers: MultiMapping[str]) -> Iterator[str]:
        """The elements of the header that name a client or proxy, from the right."""
        if self._header != FORWARDED_FOR:
            for element in _elements(headers):
                yield _parameter(element, "for")
            return
        rest: str | None = ",".join(headers.getall(hdrs.X_FORWARDED_FOR, ())) or None
        while rest is not None:
            before, comma, node = rest.rpartition(",")
            yield node
            rest = before if comma else None

    def _parse(self, node: str) -> tuple[str | None, bool]:
        """The address of an element (None: no address), and whether it is of a trusted proxy."""
        address = address_of(node)
        if address is None:
            return None, False
        parsed = ip_address(address)
        return address, any(parsed in network for network in self._networks)


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a connection."""

    address: str
    proxies: TrustedProxies | None = None
    """Set if the peer is a trusted proxy; they read its headers."""


def client_address(request: web.BaseRequest) -> str | None:
    """The address of the client that sent a request; None if its connection was closed at once.

    Limits, sessions, events and logs use it.
    """
    peer = getattr(request.protocol, "peer", None)
    if type(peer) is not Peer:
        return request.remote
    if peer.proxies is None:
        return peer.address
    return peer.proxies.client(request.headers, peer.address)


def by_https(request: web.BaseRequest) -> bool:
    """Whether the client sent the request by https, to this node or to a trusted proxy."""
    if request.secure:
        return True
    peer = getattr(request.protocol, "peer", None)
    return type(peer) is Peer and peer.proxies is not None and peer.proxies.by_https(request.headers)


def address_of(node: str) -> str | None:
    """The address in `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:80`.

    None for any other text.
    """
    text = node.strip()
    if len(text) > LONGEST_NODE or "%" in text:
        return None
    host, port = text, ""
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        if not bracket or ":" not in host:
            return None
    elif text.count(":") == 1:
        host, _, digits = text.partition(":")
        port = f":{digits}"
    if port and not _is_port(port):
        return None
    try:
        address = ip_address(host)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return str(address)


def _is_port(text: str) -> bool:
    """A colon and a number, or an obfuscated port (RFC 7239 section 6.2)."""
    name = text[1:]
    return text.startswith(":") and bool(name) and name.isascii() and (name.isdigit() or name.startswith("_"))


def _elements(headers: MultiMapping[str]) -> Iterator[str]:
    """The elements of Forwarded (RFC 7239 section 4), the rightmost first."""
    text = ",".join(headers.getall(hdrs.FORWARDED, ()))
    return _parts(text, ",") if text else iter(())


def _parameter(element: str, wanted: str) -> str:
    """The value of a parameter of an element; empty unless the element has the parameter once."""
    found = []
    for pair in _parts(element, ";"):
        name, _, value = pair.strip().partition("=")
        if name.lower() == wanted:
            quoted = len(value) > 1 and value[0] == value[-1] == '"'
            found.append(value[1:-1] if quoted else value)
    return found[0] if len(found) == 1 else ""


def _parts(text: str, separator: str) -> Iterator[str]:
    """The parts between separators that are not in a quoted string, the rightmost first.

    The text is read from the right, so that an open quote of a client does not hide what a proxy appended.
    """
    end, quoted = len(text), False
    for at in range(len(text) - 1, -1, -1):
        if text[at] == '"':
            quoted ^= not _is_escaped(text, at)
        elif text[at] == separator and not quoted:
            yield text[at + 1 : end]
            end = at
    yield text[:end]


def _is_escaped(text: str, at: int) -> bool:
    begin = at
    while begin and text[begin - 1] == "\\":
        begin -= 1
    return (at - begin) % 2 == 1
