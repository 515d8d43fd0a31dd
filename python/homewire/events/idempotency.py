"""Idempotency-Key: a retry of a request is answered like the first, without a second event.

The record lies in the slot of the shard that the event goes to, and is written in the same atomic
step. Hence its edge: if a device moves to another home between try and retry, the retry goes to
another shard and is a new event. Keys are remembered for `BusSettings.idempotency_ms` (10 minutes).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from aiohttp import web

from homewire.auth.models import Principal
from homewire.bus.append import Bus
from homewire.errors import InvalidInput
from homewire.limits.rates import Rates

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
