"""Authorise again: a reservation that agrees with the store, whatever changed while it was made.

What the tail reads after a reservation was queued is applied to it by the reactor. What the tail had
read before must be in what was looked up; and it is, in one of two cases: no mark moved from before
the look-up until after the reservation, or the store, asked behind the reservation, says the same.

The marks are only the quick way to know. They are compared over all shards, because the copies of one
record have no common order: with the copy of a home read and that of its user to come, the user's mark
alone would vouch for a membership that the reservation will never hear the end of.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from homewire._core import Core
from homewire.errors import Unavailable
from homewire.gateway.freshness import ANEW, Freshness
from homewire.gateway.handoff import Observer
from homewire.gateway.subscribe import Subscription
from homewire.model import Principal
from homewire.overload import Admission

ATTEMPTS: Final = 5
"""How often something may be reserved that the store then sees otherwise. Only changes of this very
subscription count: others, however many, cost another look-up and send nobody away."""

Claim: TypeAlias = tuple[Principal, Subscription]
"""Who somebody is, and what they may hear."""
LookUp: TypeAlias = Callable[[int], Awaitable[Claim]]
"""Finds a claim, as of a total of the marks (`MarkedCache.get`). Raises RequestError if there is none."""
Reserved: TypeAlias = Callable[[int, Principal], None]
"""Called with the id of a reservation, and whose it is."""


async def reserve(
    core: Core,
    freshness: Freshness,
    admission: Admission,
    look_up: LookUp,
    address: str | None,
    observe: Observer | None = None,
    reserved: Reserved | None = None,
) -> tuple[int, Principal]:
    """A reservation, by its id, of what may be heard now, and whose it is. `address` is the client's.
    `reserved` is told of each that is made, also of those that are abandoned again.

    Raises what `look_up` raises, TooManyRequests, and Unavailable when the answer keeps changing; nothing
    is reserved then.
    """
    seen = freshness.total()
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
            if freshness.total() != seen:
                seen = freshness.total()
                current = await look_up(ANEW)
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
