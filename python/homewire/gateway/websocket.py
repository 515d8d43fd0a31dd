"""The two WebSocket endpoints, from the request to the handoff.

The order is the same for every kind of connection, and each step leans on the one before:
look up, reserve (the core hears for it), authorise again (nothing changed unheard), 101, adopt.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

from aiohttp import HttpVersion11, web

from homewire._core import Core
from homewire.errors import InvalidInput, PermissionDenied, RequestError, Unauthenticated
from homewire.gateway.authenticate import Authenticator, Credential
from homewire.gateway.delivered import deliver_first
from homewire.gateway.directory import Directory
from homewire.gateway.freshness import Freshness
from homewire.gateway.handoff import GivenAway, Observer, hand_off
from homewire.gateway.pump import Pumps
from homewire.gateway.reserve import Claim, LookUp, reserve
from homewire.gateway.subscribe import Filter, check_listener, check_own_device
from homewire.http.clients import client_address
from homewire.http.query import refuse_misspelt
from homewire.lifetimes.sockets import Sockets
from homewire.model import Principal
from homewire.overload import Admission
from homewire.store.kept_commands import KeptCommands

Prepare: TypeAlias = Callable[[int, Principal], Awaitable[None]]
"""Does something for a reservation, of that principal, before it is adopted."""
FOR_COMMANDS: Final = ("authToken",)
FOR_EVENTS: Final = ("homeId", "deviceId", "entityId", "authToken")
"""The query parameters of the two."""
SIXTEEN_BYTES: Final = re.compile("[A-Za-z0-9+/]{22}==")
"""In base64, as Sec-WebSocket-Key has to be."""


class UpgradeNeeded(PermissionDenied):
    """A plain HTTP request where only WebSockets are served (spec 000: it is rejected with 403)."""

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Upgrade": "websocket", "Connection": "Upgrade"}


@dataclass(frozen=True, slots=True)
class Gateway:
    """What the handshake needs."""

    core: Core
    authenticator: Authenticator
    directory: Directory
    freshness: Freshness
    admission: Admission
    pumps: Pumps
    kept_commands: KeptCommands
    sockets: Sockets
    observe: Observer | None = None
    """Called before each step; see `handoff.Observer`."""


def routes(gateway: Gateway) -> list[web.RouteDef]:
    """What to mount at the URL root."""
    return [
        web.get("/userSession/websocket", partial(listen_to_events, gateway), allow_head=False),
        web.get("/devices/{deviceId}/command", partial(receive_commands, gateway), allow_head=False),
    ]


async def listen_to_events(gateway: Gateway, request: web.Request) -> web.StreamResponse:
    """GET /userSession/websocket (spec 000, *Listen to events*)."""
    # Before the key is looked at: a misspelt `authToken` would be answered as a missing key.
    refuse_misspelt(request, FOR_EVENTS)
    credential = gateway.authenticator.of_websocket(request)

    async def look_up(as_of: int) -> Claim:
        principal = await gateway.authenticator.principal(credential, as_of)
        _require_upgrade(request)
        access = await check_listener(principal, gateway.directory)
        return principal, await Filter(request).subscription(principal, access, gateway.directory, as_of)

    return await _connect(gateway, request, credential, look_up)


async def receive_commands(gateway: Gateway, request: web.Request) -> web.StreamResponse:
    """GET /devices/{deviceId}/command (spec 001, *Receive Commands*)."""
    refuse_misspelt(request, FOR_COMMANDS)
    credential = gateway.authenticator.of_websocket(request)

    async def look_up(as_of: int) -> Claim:
        principal = await gateway.authenticator.principal(credential, as_of)
        _require_upgrade(request)
        return principal, check_own_device(principal, request.match_info["deviceId"])

    async def kept_first(connection_id: int, device: Principal) -> None:
        await deliver_first(gateway.core, gateway.kept_commands, connection_id, device.project_id, device.id)

    return await _connect(gateway, request, credential, look_up, kept_first)


async def _connect(
    gateway: Gateway,
    request: web.Request,
    credential: Credential,
    look_up: LookUp,
    prepare: Prepare | None = None,
) -> GivenAway:
    """Reserve what was looked up, authorise again, prepare, 101, adopt.

    Raises what `look_up` and `prepare` raise.
    """
    core, observe = gateway.core, gateway.observe
    try:
        connection_id, principal = await reserve(
            core,
            gateway.freshness,
            gateway.admission,
            look_up,
            client_address(request),
            observe,
            gateway.sockets.opened,
        )
    except Unauthenticated:
        await gateway.authenticator.note_dead_cookies(request, credential)
        raise
    if prepare is not None:
        try:
            await prepare(connection_id, principal)
        except BaseException:
            core.abandon(connection_id)
            raise
    return await hand_off(request, core, connection_id, gateway.pumps, observe)


def _require_upgrade(request: web.Request) -> None:
    """Raises UpgradeNeeded, or InvalidInput for an upgrade that RFC 6455 section 4.2.1 does not allow."""
    headers = request.headers
    connection = ",".join(headers.getall("Connection", []))
    if request.version < HttpVersion11:
        raise UpgradeNeeded(problem="a WebSocket begins with a request of HTTP/1.1")
    if headers.get("Upgrade", "").strip().lower() != "websocket" or "upgrade" not in _tokens(connection):
        raise UpgradeNeeded(
            problem="this path opens a WebSocket: send `Upgrade: websocket` and `Connection: Upgrade`"
        )
    if headers.get("Sec-WebSocket-Version", "") != "13":
        raise _unsupported_version()
    if SIXTEEN_BYTES.fullmatch(headers.get("Sec-WebSocket-Key", "")) is None:
        raise InvalidInput("Sec-WebSocket-Key", "must be 16 bytes in base64")


def _tokens(value: str) -> set[str]:
    return {token.strip().lower() for token in value.split(",")}


class _UnsupportedVersion(InvalidInput):
    @property
    def headers(self) -> Mapping[str, str]:
        return {"Sec-WebSocket-Version": "13"}


def _unsupported_version() -> RequestError:
    return _UnsupportedVersion("Sec-WebSocket-Version", "must be 13")
