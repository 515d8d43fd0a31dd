"""What the handlers of events and commands share: dependencies, and Idempotency-Keys.

The record lies in the slot of the shard that the event goes to, and is written in the same atomic
step. Hence its edge: if a device moves to another home between try and retry, the retry goes to
another shard and is a new event. Keys are remembered for `BusSettings.idempotency_ms` (10 minutes).
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from aiohttp import web

from homewire.auth.authenticator import Authenticate, HomeDirectory
from homewire.auth.models import Principal
from homewire.bus.append import Bus
from homewire.clock import MACHINE_CLOCK, Clock
from homewire.errors import InvalidInput
from homewire.events.queued_commands import QueueBounds, QueuedCommands
from homewire.limits.rates import Rates
from homewire.server.requests import BodyReader
from homewire.settings import Settings
from homewire.settings.fields import BULK_BODY_BYTES

KIBIBYTE = 1024


@dataclass(frozen=True, slots=True)
class Ingest:
    """The collaborators and bounds of the ingest handlers. Sizes in bytes, times in seconds."""

    bus: Bus
    authenticate: Authenticate
    directory: HomeDirectory
    rates: Rates = field(default_factory=lambda: Rates(Settings()))
    """Counted once the principal is known, before any look-up or read for the request."""
    queued_commands: QueuedCommands | None = None
    """Where commands wait for devices that are not connected; without it none may."""
    queue_bounds: QueueBounds = field(default_factory=lambda: QueueBounds(100, 256 * KIBIBYTE))
    """What may wait for one device."""
    max_queued_s: int = 604_800
    reader: BodyReader = field(default_factory=BodyReader)
    shards: int = 64
    clock: Clock = MACHINE_CLOCK
    body_bytes: int = 80 * KIBIBYTE
    """64 KiB of event data, and room for the rest of the object."""
    is_connected: Callable[[int, int], Awaitable[bool]] | None = None
    """Whether a device, by project and id, is connected now. Without it no command is refused for that."""
    platform_types: bool = False
    """Whether clients may send event types of the platform (`_…_`)."""
    bulk_body_bytes: int = BULK_BODY_BYTES


HEADER = "Idempotency-Key"
LONGEST_KEY = 255


@dataclass(frozen=True, slots=True)
class Once:
    """One request's claim to be done once: its scope, and the fingerprint of its body."""

    scope_key: str
    fingerprint: str


def idempotency_key(request: web.Request) -> str | None:
    """The request's key, None if it has none. Raises InvalidInput naming the header."""
    values = request.headers.getall(HEADER, None)
    if values is None:
        return None
    key = values[0]
    if len(values) > 1 or not 1 <= len(key) <= LONGEST_KEY or not all("!" <= char <= "~" for char in key):
        raise InvalidInput(HEADER, f"must be one value of 1 to {LONGEST_KEY} visible ASCII characters")
    return key


def claim(
    rates: Rates, key: str, principal: Principal, operation: str, body: bytes, records: int = 1
) -> Once:
    """The claim of `principal`'s request with `key`. `operation` is method and path, ids in it; so many
    `records` are kept of it. Raises TooManyRequests for a principal that uses too many keys.

    The scope is cut to 128 bits: it is stored for each request, and two of one client's own keys
    are all that could ever collide to anybody's use.
    """
    rates.take_keys(principal, records)
    scope = f"{principal.project_id}|{principal.kind}|{principal.id}|{operation}|{key}"
    return Once(hashlib.sha256(scope.encode()).hexdigest()[:32], hashlib.sha256(body).hexdigest()[:32])


def key_reused() -> InvalidInput:
    """The refusal of a key that stands for another request."""
    return InvalidInput(HEADER, "was used for a request with another body", "IDEMPOTENCY_KEY_REUSED")


async def append_event(bus: Bus, shard: int, envelope: bytes, once: Once | None) -> None:
    """Append one envelope, at most once if the request claims that. Raises BusError, InvalidInput."""
    if once is None:
        await bus.append(shard, envelope)
    elif await bus.append_once(shard, once.scope_key, once.fingerprint, [envelope]) is None:
        raise key_reused()
