"""A client of homewire's HTTP and WebSocket API, as any other would be written."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import aiohttp

from homewire.errors import ClientError

GIVE_UP_FROM = 4500
"""Close codes from here on mean: don't come back."""

LONGEST_DELAY_S = 10.0

_SCHEMES = ("http", "https", "ws", "wss")

Trust: TypeAlias = ssl.SSLContext | aiohttp.Fingerprint | bool


@dataclass(frozen=True, slots=True)
class Filter:
    """What to hear. Entities win over devices, devices over homes; none: all homes of the user."""

    homes: Sequence[int] = ()
    devices: Sequence[int] = ()
    entities: Sequence[str] = ()

    def query(self) -> list[tuple[str, str]]:
        """The query parameters of ``GET /userSession/websocket``."""
        homes = [("homeId", str(home)) for home in self.homes]
        devices = [("deviceId", str(device)) for device in self.devices]
        return homes + devices + [("entityId", entity) for entity in self.entities]


class Client:
    """Speaks to one homewire at `url` (http[s]://host:port) with one key. Close it, or use `async with`.

    `tls` says whom to believe, as aiohttp's `ssl` does; True: a public authority.
    """

    def __init__(self, url: str, key: str, timeout_s: float = 10.0, *, tls: Trust = True) -> None:
        """Nothing is opened yet. Raises ClientError for a URL that cannot be."""
        _require_origin(url)
        headers = {"Authorization": f"ModeCloud {key}"}
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        connector = aiohttp.TCPConnector(ssl=tls)
        self._http = aiohttp.ClientSession(url, headers=headers, timeout=timeout, connector=connector)
        self._url = url

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    async def put(self, path: str, body: dict[str, Any]) -> None:
        """PUT a JSON body. Raises ClientError unless the answer is 204, as devices do."""
        try:
            async with self._http.put(path, json=body) as response:
                if response.status != 204:
                    raise ClientError(f"PUT {path}: {response.status} {await response.text()}")
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._unreachable(error) from error

    async def listen(self, chosen: Filter, deliver: Callable[[str], None]) -> None:
        """Hand every event, a JSON text, to `deliver`, coming back after a broken connection.

        Runs until cancelled. Raises ClientError when the server refuses, can't be reached at the first
        try, or closes with a code that says not to come back.
        """
        delay = 0.0
        connected = False
        while True:
            try:
                connected = await self._listen_once(chosen, deliver)
                delay = 0.0
            except aiohttp.WSServerHandshakeError as error:
                if not connected or error.status < 500:
                    raise ClientError(f"the server refused to be listened to: {error.status}") from None
            except (aiohttp.ClientError, TimeoutError) as error:
                if not connected:
                    raise self._unreachable(error) from error
            delay = min(delay * 2 or 1.0, LONGEST_DELAY_S)
            await asyncio.sleep(delay)

    async def _listen_once(self, chosen: Filter, deliver: Callable[[str], None]) -> bool:
        """One connection, from handshake to close. True: come back. Raises ClientError: don't."""
        connecting = self._http.ws_connect(
            "/userSession/websocket", params=chosen.query(), max_msg_size=0, autoping=True
        )
        async with connecting as socket:
            async for message in socket:
                if message.type is aiohttp.WSMsgType.TEXT:
                    deliver(message.data)
            code = socket.close_code or 1006
        if code >= GIVE_UP_FROM:
            raise ClientError(f"the server ended the connection for good: close code {code}")
        return True

    def _unreachable(self, error: Exception) -> ClientError:
        if isinstance(error, aiohttp.ServerFingerprintMismatch | aiohttp.ClientSSLError):
            return ClientError(
                f"{self._url} showed a certificate that is not trusted here ({type(error).__name__}). "
                "Name what to trust with --tls-ca"
            )
        # Not the error's own text: it may quote a URL, and a URL may carry a key.
        return ClientError(f"no answer from {self._url} ({type(error).__name__}). Is homewire running there?")


def _require_origin(url: str) -> None:
    """Raises ClientError unless `url` is http[s]://host:port, all that paths are added to."""
    try:
        parts = urlsplit(url)
        named, _ = parts.hostname, parts.port
    except ValueError:
        named = None
    if not named or parts.scheme not in _SCHEMES or parts.path.strip("/") or parts.query:
        raise ClientError(f"{url} is not the URL of a homewire, which is like http://host:port")
