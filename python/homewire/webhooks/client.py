"""The client that posts events to webhooks: signatures, allowed addresses, and how a request fails.

A webhook must have a public address, unless the setting `webhook_private_addresses` allows others. The
address is checked when the socket is created. A check at registration would not be enough, because a name may
resolve to another address later, and an address in a URL is never resolved.

A signature proves to the receiver that homewire sent the request and that nothing was changed. It covers the
time, so that the receiver can refuse replays. Requests to the SMS gateway are signed in the same way.
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
"""Hex HMAC-SHA256 of the URL, exactly as it was registered, and the body, as in the data models."""
EVENT_ID: Final = "X-Mode-Event-Id"
SUCCESS: Final = 200
"""The only status that accepts a delivery."""
ANSWER_BYTES: Final = 4096
"""Read buffer of a response. The body of a response is not used."""
KEEP_ALIVE_S: Final = 15.0


class WebhookClient:
    """Posts events to webhooks. Use it as an asynchronous context manager."""

    def __init__(self, settings: Settings, clock: Clock = MACHINE_CLOCK) -> None:
        self._clock = clock
        # The semaphore is the limit, not the connector: waiting for a turn does not count as request time.
        self._turns = asyncio.Semaphore(settings.webhook_requests)
        self._session = aiohttp.ClientSession(
            connector=TCPConnector(
                limit=0,
                keepalive_timeout=KEEP_ALIVE_S,
                # A name is resolved for each connection, because its address may change.
                use_dns_cache=False,
                socket_factory=None if settings.webhook_private_addresses else public_socket,
            ),
            timeout=ClientTimeout(
                total=settings.webhook_timeout_s,
                sock_connect=min(settings.webhook_connect_s, settings.webhook_timeout_s),
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "homewire", "Content-Type": "application/json"},
            # The body is not used, and a compressed one may be a decompression bomb.
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
        """Post one event. Returns None if the receiver accepted it, else the problem, without the URL.

        During a rotation `keys` has the old key first. `X-Mode-Signature` is made with the first key.
        """
        headers = {
            MODE_SIGNATURE: hmac_hex(keys[0], url, body),
            HEADER: webhook_signature(keys, self._clock.now_ms() // 1000, event_id, url, body),
            EVENT_ID: event_id,
        }
        try:
            async with self._turns:
                answer = await self._session.post(
                    # Not normalised: the signature covers the URL as it was registered.
                    URL(url, encoded=True),
                    data=body,
                    headers=headers,
                    allow_redirects=False,
                )
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return _problem(error)
        # After a short body the connection can be used again. A longer body is not read.
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
"""The part of IPv6 from which public addresses are assigned."""
_NOT_GLOBAL: Final = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24", "3fff::/20")))
"""Special networks that `ipaddress` of Python 3.11 takes for public."""
_LOW: Final = 2**32
"""IPv4-compatible addresses, `::a.b.c.d`, are below this number."""


class AddressRefused(OSError):
    """An address that is not public. The text does not name it: it may belong to an internal network."""

    def __init__(self) -> None:
        super().__init__("the address is not public")


def is_public(address: str) -> bool:
    """Whether an IP address is public. An IPv4 address inside an IPv6 address is checked as IPv4."""
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
    """The IPv4 address inside an IPv6 address (mapped, compatible, NAT64 or 6to4), or None."""
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) % _LOW)
    if 1 < int(address) < _LOW:
        return ipaddress.IPv4Address(int(address))
    return address.ipv4_mapped or address.sixtofour


HEADER: Final = "X-Homewire-Signature"


def hmac_hex(key: str, *parts: str | bytes) -> str:
    """Hex HMAC-SHA256 of the concatenated parts."""
    digest = hmac.new(key.encode(), digestmod=hashlib.sha256)
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()


def webhook_signature(keys: Iterable[str], time_s: int, event_id: str, url: str, body: bytes) -> str:
    """The header `t=<unix seconds>,v1=<hex>`, with one v1 for each key: two during a rotation.

    The signed text is `<t>.<event id>.<url>.<body>`. The receiver takes time and id from the headers, and its
    own URL exactly as it was registered.
    """
    signatures = (f"v1={hmac_hex(key, f'{time_s}.{event_id}.{url}.', body)}" for key in keys)
    return ",".join((f"t={time_s}", *signatures))
