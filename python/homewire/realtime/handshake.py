"""The two WebSocket endpoints, from the request to the handoff.

The steps are the same for each kind of connection: authorise, reserve (from here on the core delivers to the
connection), authorise again, answer 101, adopt.

The second authorisation makes sure that no control record is missed. The reactor applies to a reservation all
records that the stream reader reads after it. Records that were read before must have been in effect when the
connection was authorised. That is so in two cases: no cache version changed between the first authorisation
and the reservation, or the store gives the same result after the reservation.

Comparing cache versions only saves the query of the store. They are compared over all shards, because copies
of one record in several shards are read in any order. If the copy in the shard of a home is read already, and
that in the shard of the user is not, the version of the user's shard does not show the change.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

from aiohttp import HttpVersion11, web

from homewire._core import Core
from homewire.auth.access import Authorisation
from homewire.auth.actions import Action, require_key
from homewire.auth.authenticator import Authenticator, Credential
from homewire.auth.cache import BYPASS, CacheVersions
from homewire.auth.models import Principal, PrincipalKind
from homewire.auth.subscription import Filter, ListenQuery, Subscription
from homewire.errors import InvalidInput, PermissionDenied, RequestError, Unauthenticated, Unavailable
from homewire.events.queued_commands import QueuedCommands, deliver_first
from homewire.limits.connections import ConnectionLimits
from homewire.presence.connected import ConnectedDevices
from homewire.realtime.handoff import Observer, hand_off
from homewire.realtime.tls_bridge import TlsBridges
from homewire.server.answers import HandedOff
from homewire.server.clients import client_address
from homewire.server.requests import path_id, refuse_misspelt, require_utf8_query
from homewire.sessions.expiry import SocketExpiry

COMMAND_PARAMETERS: Final = ("authToken",)
EVENT_PARAMETERS: Final = (*ListenQuery.__struct_encode_fields__, "authToken")
"""The query parameters of the two endpoints."""
SIXTEEN_BYTES: Final = re.compile("[A-Za-z0-9+/]{22}==")
"""A Sec-WebSocket-Key: 16 bytes in base64."""
ATTEMPTS: Final = 5
"""How often a reservation may differ from the second authorisation. Only changes of this connection's own
subscription count. After other changes the store gives the same result."""

Authorized: TypeAlias = tuple[Principal, Subscription]
"""A principal, and what it may subscribe to."""
Authorize: TypeAlias = Callable[[int], Awaitable[Authorized]]
"""Authorises a handshake with records of a total of cache versions (`VersionedCache.get`). Raises
RequestError."""
Prepare: TypeAlias = Callable[[int, Principal], Awaitable[None]]
"""Called with the id of a reservation and its principal before the adoption."""
Reserved: TypeAlias = Callable[[int, Principal], None]
"""Called with the id of each reservation and its principal as soon as it is made."""


class UpgradeNeeded(PermissionDenied):
    """A plain HTTP request to a WebSocket endpoint (spec 000: it is rejected with 403)."""

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Upgrade": "websocket", "Connection": "Upgrade"}


@dataclass(frozen=True, slots=True)
class HandshakeContext:
    """The dependencies of handshakes."""

    core: Core
    authenticator: Authenticator
    authorisation: Authorisation
    cache_versions: CacheVersions
    connection_limits: ConnectionLimits
    tls_bridges: TlsBridges
    queued_commands: QueuedCommands
    socket_expiry: SocketExpiry
    connected_devices: ConnectedDevices
    observe: Observer | None = None
    """Called before each step; see `handoff.Observer`."""

    def reserved(self, connection_id: int, principal: Principal) -> None:
        """Note a reservation before its client is answered. The core notifies of its end in any case.

        A notification of the core would be too late: its thread may first read the end of the device's last
        socket, which the client closed when it got this 101.
        """
        self.socket_expiry.opened(connection_id, principal)
        if principal.kind is PrincipalKind.DEVICE:
            self.connected_devices.reserved(connection_id, principal.project_id, principal.id)


def routes(context: HandshakeContext) -> list[web.RouteDef]:
    """The routes to mount at the URL root."""
    return [
        web.get("/userSession/websocket", partial(listen_to_events, context), allow_head=False),
        web.get("/devices/{deviceId}/command", partial(receive_commands, context), allow_head=False),
    ]


async def listen_to_events(context: HandshakeContext, request: web.Request) -> web.StreamResponse:
    """GET /userSession/websocket (spec 000, *Listen to events*)."""
    # Checked before the key: a misspelt `authToken` would otherwise be answered as a missing key.
    refuse_misspelt(request, EVENT_PARAMETERS)
    credential = context.authenticator.for_websocket(request)

    async def authorize(at_version: int) -> Authorized:
        principal = await context.authenticator.principal(credential, at_version)
        _require_upgrade(request)
        require_key(principal, Action.RECEIVE_HOME)
        require_utf8_query(request)
        wanted = Filter.of(request.query)
        return principal, await context.authorisation.subscription(principal, wanted, at_version)

    return await _connect(context, request, credential, authorize)


async def receive_commands(context: HandshakeContext, request: web.Request) -> web.StreamResponse:
    """GET /devices/{deviceId}/command (spec 001, *Receive Commands*)."""
    refuse_misspelt(request, COMMAND_PARAMETERS)
    credential = context.authenticator.for_websocket(request)

    async def authorize(at_version: int) -> Authorized:
        principal = await context.authenticator.principal(credential, at_version)
        _require_upgrade(request)
        require_key(principal, Action.RECEIVE_COMMANDS)
        return principal, context.authorisation.commands(principal, path_id(request, "deviceId"))

    async def prepare_queued_commands(connection_id: int, device: Principal) -> None:
        await deliver_first(
            context.core, context.queued_commands, connection_id, device.project_id, device.id
        )

    return await _connect(context, request, credential, authorize, prepare_queued_commands)


async def _connect(
    context: HandshakeContext,
    request: web.Request,
    credential: Credential,
    authorize: Authorize,
    prepare: Prepare | None = None,
) -> HandedOff:
    """Authorise, reserve, authorise again, prepare, answer 101, adopt.

    Raises the errors of `authorize` and `prepare`, and those of `reserve`.
    """
    core, observe = context.core, context.observe
    try:
        connection_id, principal = await reserve(
            core,
            context.cache_versions,
            context.connection_limits,
            authorize,
            client_address(request),
            observe,
            context.reserved,
        )
    except Unauthenticated:
        await context.authenticator.note_dead_cookies(request, credential)
        raise
    if prepare is not None:
        try:
            await prepare(connection_id, principal)
        except BaseException:
            core.abandon(connection_id)
            raise
    return await hand_off(request, core, connection_id, context.tls_bridges, observe)


def _require_upgrade(request: web.Request) -> None:
    """Raises UpgradeNeeded, or InvalidInput for an upgrade that RFC 6455 section 4.2.1 does not allow."""
    headers = request.headers
    connection = ",".join(headers.getall("Connection", []))
    if request.version < HttpVersion11:
        raise UpgradeNeeded(problem="a WebSocket begins with an HTTP/1.1 request")
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


async def reserve(
    core: Core,
    cache_versions: CacheVersions,
    connection_limits: ConnectionLimits,
    authorize: Authorize,
    address: str | None,
    observe: Observer | None = None,
    reserved: Reserved | None = None,
) -> tuple[int, Principal]:
    """Reserve a connection for what is authorised. Returns the id of the reservation, and its principal.

    `address` is the address of the client. `reserved` is called for each reservation, also for those that are
    abandoned. Raises the errors of `authorize`, TooManyRequests, and Unavailable when the result changes each
    time; then nothing is reserved.
    """
    seen = cache_versions.total()
    authorized = await authorize(seen)
    # Not in the loop: an abandoned reservation counts until the reactor handles it.
    connection_limits.check(authorized[0], address)
    for _ in range(ATTEMPTS):
        await _observed(observe, "reserve")
        connection_id = core.reserve(*authorized, address)
        if reserved is not None:
            reserved(connection_id, authorized[0])
        try:
            await _observed(observe, "authorise")
            current = authorized
            if cache_versions.total() != seen:
                seen = cache_versions.total()
                current = await authorize(BYPASS)
            if current == authorized:
                await _observed(observe, "answer")
                return connection_id, authorized[0]
        except BaseException:
            core.abandon(connection_id)
            raise
        core.abandon(connection_id)
        authorized = current
    raise Unavailable(problem="your access changes too often: try again later")


async def _observed(observe: Observer | None, step: str) -> None:
    if observe is not None:
        await observe(step)
