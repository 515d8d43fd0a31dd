"""One delivery: an event, signed, in a POST.

Which addresses a webhook may be on: those of the public internet, unless a setting allows others.

What counts is the address that is connected to, looked at when its socket is made: a name may resolve to
one thing when it is registered and to another later, and an address in a URL is never resolved at all.

Signatures of what homewire posts: to webhooks, and to the gateway for SMS.

A receiver that has the key sees who posts and that nothing was changed. The time is signed, too, so that it
can refuse what was recorded and is posted again.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import socket
import ssl
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
from aiohttp import ClientTimeout, TCPConnector
from yarl import URL

from homewire.clock import MACHINE_CLOCK, Clock
from homewire.settings import Settings

MODE_SIGNATURE: Final = "X-Mode-Signature"
"""As the data models have it: hex HMAC-SHA256 of URL, exactly as it was registered, and body."""
EVENT_ID: Final = "X-Mode-Event-Id"
SUCCESS: Final = 200
"""The only status that says so."""
ANSWER_BYTES: Final = 4096
"""What is read ahead of an answer's body; nobody looks at it."""
KEEP_ALIVE_S: Final = 15.0


class WebhookClient:
    """Posts events. Use it as an asynchronous context manager."""

    def __init__(self, settings: Settings, clock: Clock = MACHINE_CLOCK) -> None:
        self._clock = clock
        # Whose turn has not come yet has not begun to wait for an answer, so the connector sets no limit.
        self._turns = asyncio.Semaphore(settings.webhook_requests)
        self._session = aiohttp.ClientSession(
            connector=TCPConnector(
                limit=0,
                keepalive_timeout=KEEP_ALIVE_S,
                # Resolved anew for each connection: what a name means may change.
                use_dns_cache=False,
                socket_factory=None if settings.webhook_private_addresses else public_socket,
            ),
            timeout=ClientTimeout(
                total=settings.webhook_timeout_s,
                sock_connect=min(settings.webhook_connect_s, settings.webhook_timeout_s),
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "homewire", "Content-Type": "application/json"},
            # Nobody wants the body, and it may be a bomb.
            auto_decompress=False,
            read_bufsize=ANSWER_BYTES,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def post(self, url: str, keys: Sequence[str], event_id: str, body: bytes) -> str | None:
        """None if the receiver took it; else why not, without a word of what the URL is.

        `keys`: of two, the older stands first. It makes the signature that can only be one.
        """
        headers = {
            MODE_SIGNATURE: hmac_hex(keys[0], url, body),
            HEADER: webhook_signature(keys, self._clock.now_ms() // 1000, event_id, url, body),
            EVENT_ID: event_id,
        }
        try:
            async with self._turns:
                answer = await self._session.post(
                    # As it was registered, and signed: nothing is normalised.
                    URL(url, encoded=True),
                    data=body,
                    headers=headers,
                    allow_redirects=False,
                )
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return _problem(error)
        # A short body came with the head, and the connection can be used again; else it is closed.
        if answer.content.at_eof():
            answer.release()
        else:
            answer.close()
        return None if answer.status == SUCCESS else f"status {answer.status}"


def _problem(error: Exception) -> str:
    if isinstance(error, aiohttp.InvalidURL):
        return "the URL can't be used"
    if isinstance(error, asyncio.TimeoutError):
        return "timed out"
    if isinstance(error, (aiohttp.ClientSSLError, ssl.SSLError)):
        return "TLS failed"
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, AddressRefused):
        return str(cause)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "the name can't be resolved"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "can't connect"
    if isinstance(error, (aiohttp.ServerDisconnectedError, OSError)):
        return "the connection broke"
    return "no valid HTTP answer"


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


HEADER: Final = "X-Homewire-Signature"


def hmac_hex(key: str, *parts: str | bytes) -> str:
    """Hex HMAC-SHA256 of all parts, one behind the other."""
    digest = hmac.new(key.encode(), digestmod=hashlib.sha256)
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()


def webhook_signature(keys: Iterable[str], time_s: int, event_id: str, url: str, body: bytes) -> str:
    """`t=<unix seconds>,v1=<hex>`, with a v1 for each key: two while a key is being replaced.

    Signed is `<t>.<event id>.<url>.<body>`. The receiver takes time and id from the headers; the URL is its
    own, exactly as it was registered.
    """
    signatures = (f"v1={hmac_hex(key, f'{time_s}.{event_id}.{url}.', body)}" for key in keys)
    return ",".join((f"t={time_s}", *signatures))
