"""One delivery: an event, signed, in a POST."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

import aiohttp
from aiohttp import ClientTimeout, TCPConnector
from yarl import URL

from homewire.settings import Settings
from homewire.signing import HEADER, hmac_hex, webhook_signature
from homewire.webhooks.addresses import AddressRefused, public_socket

MODE_SIGNATURE: Final = "X-Mode-Signature"
"""As the shared models have it: hex HMAC-SHA256 of URL, exactly as it was registered, and body."""
EVENT_ID: Final = "X-Mode-Event-Id"
DELIVERED: Final = 200
"""The only status that says so."""
ANSWER_BYTES: Final = 4096
"""What is read ahead of an answer's body; nobody looks at it."""
KEEP_ALIVE_S: Final = 15.0


class Poster:
    """Posts events. Use it as an asynchronous context manager."""

    def __init__(self, settings: Settings) -> None:
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
            HEADER: webhook_signature(keys, int(time.time()), event_id, url, body),
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
        return None if answer.status == DELIVERED else f"status {answer.status}"


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
