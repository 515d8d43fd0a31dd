"""A client of homewire's HTTP and WebSocket API (docs/client.md).

The client reconnects, with the delays of docs/close-codes.md and of Retry-After, and reports each outage.
Each delay is random (full jitter), so that the clients of a stopped node do not return at the same moment.
Each consecutive failure doubles the range. All its errors are a homewire.errors.ClientError.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

import aiohttp

from homewire.errors import ClientError, explained

__all__ = ["Client", "Filter", "Lost", "OnLink", "Refused", "Restored", "Trust"]

SILENCE_S: Final = 30.0
"""Silence after which the client sends a ping. It waits half as long for the answer.

The server pings every 25 s (`heartbeat_s`), so on a working connection the client sends none."""
FIRST_FINAL_CODE: Final = 4500
"""Lowest close code after which a client must not reconnect with the same key."""
TEMPORARY: Final = (429, 503)
"""Statuses after which a client tries again. Retry-After says when."""
STEADY_S: Final = 30.0
"""Duration of a connection after which the delays start from the beginning."""
REASON_BYTES: Final = 64 * 1024
"""Maximum size of an error body that is read."""

_DATA: Final = (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY)
_SCHEMES = ("http", "https", "ws", "wss")

Trust: TypeAlias = ssl.SSLContext | aiohttp.Fingerprint | bool


@dataclass(frozen=True, slots=True)
class Filter:
    """The events to receive. Entities win over devices, devices over homes. Empty: all homes of the user."""

    homes: Sequence[int] = ()
    devices: Sequence[int] = ()
    entities: Sequence[str] = ()

    def query(self) -> list[tuple[str, str]]:
        """The query parameters of ``GET /userSession/websocket``."""
        homes = [("homeId", str(home)) for home in self.homes]
        devices = [("deviceId", str(device)) for device in self.devices]
        return homes + devices + [("entityId", entity) for entity in self.entities]


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection ended, or the server refuses a new one for now: `problem` says why."""

    problem: str


@dataclass(frozen=True, slots=True)
class Restored:
    """The connection is back after `after_s` seconds. Events of the outage are lost."""

    after_s: float


OnLink: TypeAlias = Callable[[Lost | Restored], None]


@dataclass(frozen=True, slots=True)
class Delay:
    """`floor_s` at least, and a random part of up to `spread_s`, which doubles up to `most_s`."""

    floor_s: float
    spread_s: float
    most_s: float = 60.0


UNREACHABLE: Final = Delay(0.0, 1.0, most_s=10.0)
"""Delay after no answer, or after a connection that broke without a close frame."""
REFUSED: Final = Delay(0.0, 1.0)
"""Delay in addition to Retry-After."""
_PROTOCOL_ERROR: Final = Delay(10.0, 1.0)
_TOO_BUSY: Final = Delay(1.0, 1.0)
_AT_ONCE: Final = Delay(0.0, 0.0)
AFTER_CLOSE: Final[Mapping[int, Delay]] = {
    **dict.fromkeys((1001, 4002), Delay(0.0, 1.0)),
    **dict.fromkeys((1002, 1003, 1007, 1008, 1009), _PROTOCOL_ERROR),
    **dict.fromkeys((1011, 1013, 4001), _TOO_BUSY),
    **dict.fromkeys((4003, 4004), _AT_ONCE),
}
"""By close code, as docs/close-codes.md has them; any other code is UNREACHABLE."""


class Backoff:
    """The delays of one listener. `uniform` is the source of randomness."""

    def __init__(self, uniform: Callable[[float, float], float] = random.uniform) -> None:
        self._uniform = uniform
        self._failures = 0

    def next_s(self, delay: Delay) -> float:
        """The next delay, in seconds. It doubles with each call, until `steady` is called."""
        # A second consecutive reconnection is never immediate, or a client could reconnect in a loop.
        spread_s = delay.spread_s or (1.0 if self._failures else 0.0)
        ceiling = min(spread_s * 2.0**self._failures, delay.most_s)
        self._failures = min(self._failures + 1, 16)
        return delay.floor_s + self._uniform(0.0, ceiling)

    def steady(self) -> None:
        """The connection lasted: start from the first delay again."""
        self._failures = 0


class Refused(ClientError):
    """The server answered with an error `status`; the message has its reason."""

    def __init__(self, status: int, reason: str, retry_after_s: float) -> None:
        self.status = status
        self.retry_after_s = retry_after_s
        super().__init__(f"the server refused: {status} {reason}")

    @property
    def is_temporary(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status in TEMPORARY


@dataclass(frozen=True, slots=True)
class _End:
    """How a connection ended, and the delay before the next one."""

    problem: str
    delay: Delay


class Client:
    """A client of one homewire at `url` (http[s]://host:port), with one key. Use it with `async with`.

    `tls` says what to trust, like aiohttp's `ssl`; True: the public authorities. A connection on which
    nothing arrives for one and a half times `silence_s` is closed.
    """

    def __init__(
        self,
        url: str,
        key: str,
        timeout_s: float = 10.0,
        *,
        tls: Trust = True,
        silence_s: float = SILENCE_S,
        backoff: Callable[[], Backoff] = Backoff,
    ) -> None:
        """Opens no connection. Raises ClientError for an invalid URL."""
        _require_origin(url)
        self._http = aiohttp.ClientSession(
            url,
            headers={"Authorization": f"ModeCloud {key}"},
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            connector=aiohttp.TCPConnector(ssl=tls),
            middlewares=(raise_refusals,),
        )
        self._url = url
        self._silence_s = silence_s
        self._backoff = backoff

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    async def put(self, path: str, body: dict[str, Any]) -> None:
        """PUT a JSON body. Raises ClientError unless the answer is 204."""
        try:
            async with self._http.put(path, json=body) as response:
                if response.status != 204:
                    raise ClientError(f"PUT {path}: the answer was {response.status}, not 204")
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._unreachable(error) from error

    async def listen(
        self, chosen: Filter, deliver: Callable[[str], None], on_link: OnLink | None = None
    ) -> None:
        """Call `deliver` with each event, a JSON text. Otherwise like `events`."""
        async with aclosing(self.events(chosen, on_link)) as events:
            async for event in events:
                deliver(event)

    async def listen_commands(
        self, device: int, deliver: Callable[[str], None], on_link: OnLink | None = None
    ) -> None:
        """Call `deliver` with each command to `device`, a JSON text. Otherwise like `commands`."""
        async with aclosing(self.commands(device, on_link)) as commands:
            async for command in commands:
                deliver(command)

    def events(self, chosen: Filter, on_link: OnLink | None = None) -> AsyncGenerator[str]:
        """Iterate over all events as JSON texts, across reconnections, until the iterator is closed.

        `on_link` is called with Lost when the connection ends and with Restored when it is back. Raises
        ClientError for a final refusal, a final close code, or a server that the first try does not reach.
        """
        return self._texts("/userSession/websocket", chosen.query(), on_link)

    def commands(self, device: int, on_link: OnLink | None = None) -> AsyncGenerator[str]:
        """Iterate over all commands to `device`, whose key this client has. Otherwise like `events`."""
        return self._texts(f"/devices/{device}/command", [], on_link)

    async def _texts(
        self, path: str, query: list[tuple[str, str]], on_link: OnLink | None
    ) -> AsyncGenerator[str]:
        backoff, link = self._backoff(), _Link(on_link)
        while True:
            wait_s = 0.0
            try:
                async with self._http.ws_connect(
                    path, params=query, max_msg_size=0, heartbeat=self._silence_s
                ) as socket:
                    link.restored()
                    opened_at = time.monotonic()
                    while (message := await socket.receive()).type in _DATA:
                        if message.type is aiohttp.WSMsgType.TEXT:
                            yield message.data
                    end = _end_of(message)
                    if time.monotonic() - opened_at >= STEADY_S:
                        backoff.steady()
            except Refused as error:
                if not (error.is_temporary or (link.was_open and error.status >= 500)):
                    raise
                end, wait_s = _End(str(error), REFUSED), error.retry_after_s
            except (aiohttp.ClientError, TimeoutError) as error:
                if not link.was_open:
                    raise self._unreachable(error) from error
                end = _End(f"no answer ({type(error).__name__})", UNREACHABLE)
            link.lost(end.problem)
            await asyncio.sleep(wait_s + backoff.next_s(end.delay))

    def _unreachable(self, error: Exception) -> ClientError:
        if isinstance(error, aiohttp.ServerFingerprintMismatch | aiohttp.ClientSSLError):
            return ClientError(
                f"{self._url} has a certificate that is not trusted here ({type(error).__name__}). "
                "Name what to trust with --tls-ca"
            )
        # Without the text of the error, which may contain a URL with a key.
        return ClientError(f"no answer from {self._url} ({type(error).__name__}). Is homewire running there?")


class _Link:
    """Reports outages: the beginning, each new refusal by the server, and the end."""

    def __init__(self, tell: OnLink | None) -> None:
        self._tell = tell
        self._lost_at: float | None = None
        self._refusal = ""
        self.was_open = False

    def restored(self) -> None:
        """A connection is open."""
        self.was_open = True
        lost_at, self._lost_at, self._refusal = self._lost_at, None, ""
        if lost_at is not None and self._tell is not None:
            self._tell(Restored(time.monotonic() - lost_at))

    def lost(self, problem: str) -> None:
        """No connection is open, because of `problem`."""
        is_first = self._lost_at is None
        if is_first:
            self._lost_at = time.monotonic()
        is_news = problem.startswith("the server refused") and problem != self._refusal
        if is_news:
            self._refusal = problem
        if self._tell is not None and (is_first or is_news):
            self._tell(Lost(problem))


def _end_of(message: aiohttp.WSMessage) -> _End:
    """How the connection ended, by its last message. Raises ClientError for a final close code."""
    if message.type is aiohttp.WSMsgType.CLOSE:
        named = f"{message.data} {message.extra or ''}".strip()
        if message.data >= FIRST_FINAL_CODE:
            raise ClientError(f"the server closed the connection; do not reconnect: close code {named}")
        return _End(f"close code {named}", AFTER_CLOSE.get(message.data, UNREACHABLE))
    if isinstance(message.data, aiohttp.ServerTimeoutError):
        return _End("nothing arrived", UNREACHABLE)
    return _End("the connection broke", UNREACHABLE)


def _require_origin(url: str) -> None:
    """Check that `url` is http[s]://host:port. Raises ClientError."""
    try:
        parts = urlsplit(url)
        named, _ = parts.hostname, parts.port
    except ValueError:
        named = None
    if not named or parts.scheme not in _SCHEMES or parts.path.strip("/") or parts.query:
        raise ClientError(f"{url} is not the URL of a homewire: it must look like http://host:port")


async def raise_refusals(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Middleware of aiohttp's client that raises Refused for an error status.

    Otherwise aiohttp would drop the body of a refused handshake, which has the reason.
    """
    response = await handler(request)
    if response.status < 400:
        return response
    try:
        body = await response.content.read(REASON_BYTES)
    finally:
        response.close()
    raise Refused(response.status, _reason(body), _seconds(response.headers.get("Retry-After", "")))


def _reason(body: bytes) -> str:
    """Reason and details of a refusal by homewire. The body of a proxy's error is not shown."""
    try:
        problem: Any = json.loads(body)
        reason, data = str(problem["reason"]), dict(problem.get("data") or {})
    except (ValueError, KeyError, TypeError, AttributeError):
        return "(no reason given)"
    text = explained(reason, data)
    return text if text.startswith(reason) else f"{reason}, {text}"


def _seconds(retry_after: str) -> float:
    """Parse Retry-After, which may be a date (RFC 9110, 10.2.3), into seconds. Empty: 0."""
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return 0.0
