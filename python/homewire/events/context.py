"""What the handlers of events and commands share: dependencies, and Idempotency-Keys.

The record of a key is in the slot of the shard that gets the event, and one atomic step writes both. Hence a
limitation: if a device moves to another home before a retry, the retry goes to another shard and is a new
event. Keys are stored for `BusSettings.idempotency_ms` (10 minutes).
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web

from homewire.auth.access import Authorisation
from homewire.auth.authenticator import Authenticate
from homewire.auth.models import Principal
from homewire.bus.append import Bus
from homewire.clock import MACHINE_CLOCK, Clock
from homewire.errors import InvalidInput
from homewire.events.queued_commands import QueueBounds, QueuedCommands
from homewire.limits.rates import Rates
from homewire.server.requests import BodyReader
from homewire.settings import Settings
from homewire.settings.fields import BULK_BODY_BYTES

KIBIBYTE: Final = 1024
HEADER: Final = "Idempotency-Key"
MAX_KEY_LENGTH: Final = 255


@dataclass(frozen=True, slots=True)
class EventContext:
    """Dependencies and bounds of the handlers of events and commands. Sizes in bytes, times in seconds."""

    bus: Bus
    authenticate: Authenticate
    authorisation: Authorisation
    rates: Rates = field(default_factory=lambda: Rates(Settings()))
    """Counted when the principal is known, before the store is queried and the body is read."""
    queued_commands: QueuedCommands | None = None
    """The queues of devices that are not connected; without them no command is queued."""
    queue_bounds: QueueBounds = field(default_factory=lambda: QueueBounds(100, 256 * KIBIBYTE))
    """Bounds of the queue of one device."""
    max_queued_s: int = 604_800
    reader: BodyReader = field(default_factory=BodyReader)
    shards: int = 64
    clock: Clock = MACHINE_CLOCK
    body_bytes: int = 80 * KIBIBYTE
    """64 KiB of event data, and room for the rest of the object."""
    is_connected: Callable[[int, int], Awaitable[bool]] | None = None
    """Called with a project id and a device id: whether the device is connected. Without it no command is
    refused for that reason."""
    platform_types: bool = False
    """Whether clients may send event types of the platform (`_…_`)."""
    bulk_body_bytes: int = BULK_BODY_BYTES


@dataclass(frozen=True, slots=True)
class IdempotentRequest:
    """A request with an Idempotency-Key, which is executed once."""

    scope_key: str
    """Hash of sender, operation and key, in hex."""
    fingerprint: str
    """Hash of the body, in hex."""


def idempotency_key(request: web.Request) -> str | None:
    """The request's Idempotency-Key, or None. Raises InvalidInput that names the header."""
    values = request.headers.getall(HEADER, None)
    if values is None:
        return None
    key = values[0]
    if len(values) > 1 or not 1 <= len(key) <= MAX_KEY_LENGTH or not all("!" <= char <= "~" for char in key):
        raise InvalidInput(HEADER, f"must be one value of 1 to {MAX_KEY_LENGTH} visible ASCII characters")
    return key


def idempotent_request(
    rates: Rates, key: str | None, principal: Principal, operation: str, body: bytes, records: int = 1
) -> IdempotentRequest | None:
    """The request of `principal` with `key`; None without a key. `operation` is method and path with ids.

    `records` is how many records are stored for it. Raises TooManyRequests for a principal that uses too many
    keys. Hashes are cut to 128 bits, because they are stored for each request. Only keys of one client can
    collide, because the scope has the principal.
    """
    if key is None:
        return None
    rates.take_keys(principal, records)
    scope = f"{principal.project_id}|{principal.kind}|{principal.id}|{operation}|{key}"
    return IdempotentRequest(
        hashlib.sha256(scope.encode()).hexdigest()[:32], hashlib.sha256(body).hexdigest()[:32]
    )


def key_reused() -> InvalidInput:
    """The error for a key that was used for another request."""
    return InvalidInput(HEADER, "was used for a request with another body", "IDEMPOTENCY_KEY_REUSED")


async def append_event(bus: Bus, shard: int, envelope: bytes, once: IdempotentRequest | None) -> None:
    """Append one envelope, at most once for an idempotent request. Raises BusError, InvalidInput."""
    if once is None:
        await bus.append(shard, envelope)
    elif await bus.append_once(shard, once.scope_key, once.fingerprint, [envelope]) is None:
        raise key_reused()
