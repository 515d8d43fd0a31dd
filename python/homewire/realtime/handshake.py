"""The two WebSocket endpoints, from the request to the handoff.

The order is the same for every kind of connection, and each step leans on the one before:
look up, reserve (the core hears for it), authorise again (nothing changed unheard), 101, adopt.

Authorise again: a reservation that agrees with the store, whatever changed while it was made.

What the tail reads after a reservation was queued is applied to it by the reactor. What the tail had
read before must be in what was looked up; and it is, in one of two cases: no mark moved from before
the look-up until after the reservation, or the store, asked behind the reservation, says the same.

The marks are only the quick way to know. They are compared over all shards, because the copies of one
record have no common order: with the copy of a home read and that of its user to come, the user's mark
alone would vouch for a membership that the reservation will never hear the end of.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

from aiohttp import HttpVersion11, web

from homewire._core import Core
from homewire.auth.authenticator import Authenticator, Credential
from homewire.auth.cache import BYPASS, CacheVersions
from homewire.auth.home_directory import HomeDirectory
from homewire.auth.models import Principal, PrincipalKind
from homewire.errors import InvalidInput, PermissionDenied, RequestError, Unauthenticated, Unavailable
from homewire.events.queued_commands import QueuedCommands
from homewire.limits.connections import ConnectionLimits
from homewire.presence.connected import ConnectedDevices
from homewire.realtime.core_events import deliver_first
from homewire.realtime.handoff import Observer, hand_off
from homewire.realtime.subscription import Filter, Subscription, check_listener, check_own_device
from homewire.realtime.tls_bridge import TlsBridges
from homewire.server.answers import HandedOff
from homewire.server.clients import client_address
from homewire.server.requests import refuse_misspelt
from homewire.sessions.expiry import SocketExpiry

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
    directory: HomeDirectory
    cache_versions: CacheVersions
    admission: ConnectionLimits
    tls_bridges: TlsBridges
    queued_commands: QueuedCommands
    sockets: SocketExpiry
    connected_devices: ConnectedDevices
    observe: Observer | None = None
    """Called before each step; see `handoff.Observer`."""

    def reserved(self, connection_id: int, principal: Principal) -> None:
        """Note a reservation, before its client is answered; the core tells of its end in any case.

        Not when the core tells of it: the core's thread may read the end of the device's last socket first,
        which the client closed when it had its 101 here.
        """
        self.sockets.opened(connection_id, principal)
        if principal.kind is PrincipalKind.DEVICE:
            self.connected_devices.reserved(connection_id, principal.project_id, principal.id)


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
    credential = gateway.authenticator.for_websocket(request)

    async def look_up(at_version: int) -> Claim:
        principal = await gateway.authenticator.principal(credential, at_version)
        _require_upgrade(request)
        access = await check_listener(principal, gateway.directory)
        return principal, await Filter(request).subscription(principal, access, gateway.directory, at_version)

    return await _connect(gateway, request, credential, look_up)


async def receive_commands(gateway: Gateway, request: web.Request) -> web.StreamResponse:
    """GET /devices/{deviceId}/command (spec 001, *Receive Commands*)."""
    refuse_misspelt(request, FOR_COMMANDS)
    credential = gateway.authenticator.for_websocket(request)

    async def look_up(at_version: int) -> Claim:
        principal = await gateway.authenticator.principal(credential, at_version)
        _require_upgrade(request)
        return principal, check_own_device(principal, request.match_info["deviceId"])

    async def prepare_queued_commands(connection_id: int, device: Principal) -> None:
        await deliver_first(
            gateway.core, gateway.queued_commands, connection_id, device.project_id, device.id
        )

    return await _connect(gateway, request, credential, look_up, prepare_queued_commands)


async def _connect(
    gateway: Gateway,
    request: web.Request,
    credential: Credential,
    look_up: LookUp,
    prepare: Prepare | None = None,
) -> HandedOff:
    """Reserve what was looked up, authorise again, prepare, 101, adopt.

    Raises what `look_up` and `prepare` raise.
    """
    core, observe = gateway.core, gateway.observe
    try:
        connection_id, principal = await reserve(
            core,
            gateway.cache_versions,
            gateway.admission,
            look_up,
            client_address(request),
            observe,
            gateway.reserved,
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
    return await hand_off(request, core, connection_id, gateway.tls_bridges, observe)


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


ATTEMPTS: Final = 5
"""How often something may be reserved that the store then sees otherwise. Only changes of this very
subscription count: others, however many, cost another look-up and send nobody away."""

Claim: TypeAlias = tuple[Principal, Subscription]
"""A principal, and what it may subscribe to."""
LookUp: TypeAlias = Callable[[int], Awaitable[Claim]]
"""Finds a claim, as of a total of the marks (`VersionedCache.get`). Raises RequestError if there is none."""
Reserved: TypeAlias = Callable[[int, Principal], None]
"""Called with the id of a reservation, and whose it is."""


async def reserve(
    core: Core,
    cache_versions: CacheVersions,
    admission: ConnectionLimits,
    look_up: LookUp,
    address: str | None,
    observe: Observer | None = None,
    reserved: Reserved | None = None,
) -> tuple[int, Principal]:
    """A reservation, by its id, of what may be heard now, and whose it is. `address` is the client's.
    `reserved` is told of each as soon as it is made, also of those that are abandoned again.

    Raises what `look_up` raises, TooManyRequests, and Unavailable when the answer keeps changing; nothing
    is reserved then.
    """
    seen = cache_versions.total()
    claim = await look_up(seen)
    # Once: an abandoned reservation is counted until the reactor comes to it.
    admission.check(claim[0], address)
    for _ in range(ATTEMPTS):
        await _observed(observe, "reserve")
        connection_id = _reserve(core, claim, address)
        if reserved is not None:
            reserved(connection_id, claim[0])
        try:
            await _observed(observe, "authorise")
            current = claim
            if cache_versions.total() != seen:
                seen = cache_versions.total()
                current = await look_up(BYPASS)
            if current == claim:
                await _observed(observe, "answer")
                return connection_id, claim[0]
        except BaseException:
            core.abandon(connection_id)
            raise
        core.abandon(connection_id)
        claim = current
    raise Unavailable(problem="what you may hear keeps changing")


def _reserve(core: Core, claim: Claim, address: str | None) -> int:
    principal, subscription = claim
    return core.reserve(
        principal.kind.value,
        principal.project_id,
        principal.id,
        principal.key_tag,
        subscription.kind,
        list(subscription.ids),
        list(subscription.entities),
        list(subscription.homes),
        subscription.follow,
        address,
        list(subscription.waiting),
    )


async def _observed(observe: Observer | None, step: str) -> None:
    if observe is not None:
        await observe(step)
