"""Many events in one request: `POST /events`, ours (the spec has single events only).

NDJSON or a JSON array, one result for each item and in its order; a bad item stops no other.

With an Idempotency-Key the items are recorded one by one, in the shard each goes to: a retry after a
partial failure appends what is missing and answers the first ids for the rest. Before that, the key
itself is claimed in one place for all shards, or another body could slip past where the first had
no items.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import TypeAlias, cast

import orjson
from aiohttp import web

from homewire._core import EventBatch, InvalidField, PlacedEvents, shard_of
from homewire.auth.access import bound_elsewhere, items_bound_elsewhere, require_project_key, split_by_active
from homewire.auth.models import Principal
from homewire.bus.append import Bus
from homewire.bus.shards import BusError
from homewire.errors import BusUnavailable, InvalidInput, NotConfirmed, RequestError
from homewire.events.context import Ingest, Once, claim, idempotency_key, key_reused
from homewire.projects.models import KeyScope
from homewire.server.answers import whole_answer

Outcome: TypeAlias = bytes | RequestError
"""Of a placed item: its stream id, or why it was not stored."""


async def post_events(ingest: Ingest, request: web.Request) -> web.StreamResponse:
    """`POST /events`: a project key that may send events. 200 with `{"results": […]}`.

    503 for the whole only if every item failed because Redis is away. Its items count against the limits,
    refused ones too: 429 for the whole.
    """
    principal = await ingest.authenticate(request)
    require_project_key(principal, KeyScope.SEND_EVENT)
    key = idempotency_key(request)
    body = await ingest.reader.read(request, ingest.bulk_body_bytes)
    try:
        batch = EventBatch(body, not ingest.platform_types)
    except InvalidField as error:
        raise InvalidInput(error.field, error.problem) from error
    ingest.rates.take(principal, len(batch))
    ingest.rates.take_bytes(principal, len(body))
    placed = await _place(ingest, principal, batch)
    refused: set[int] = set()
    outcomes: Sequence[Outcome]
    if batch.names_entities:
        refused = await items_bound_elsewhere(ingest.directory, principal.project_id, placed.placed())
    if key is not None:
        once = claim(ingest.rates, key, principal, "POST /events", body, len(batch))
        outcomes = await _append_once(ingest, once, placed, refused)
    elif refused:
        outcomes = await _append_some(ingest.bus, placed, refused)
    else:
        outcomes = await _append(ingest.bus, placed)
    _raise_if_none_stored(len(batch), outcomes)
    results = placed.results(_results(outcomes))
    return whole_answer(request, 200, results)


async def _place(ingest: Ingest, principal: Principal, batch: EventBatch) -> PlacedEvents:
    """Each item's shard and envelope. One look-up for all devices, one for all homes, theirs too."""
    project_id, directory = principal.project_id, ingest.directory
    home_ids, device_ids = batch.targets()
    located = await directory.locate(project_id, device_ids) if device_ids else {}
    devices = {device_id: (place.home_id or 0, place.device_class) for device_id, place in located.items()}
    home_ids.update(home for home, _ in devices.values() if home)
    homes, deactivated = await split_by_active(directory, project_id, home_ids)
    return batch.place(
        project_id,
        ingest.clock.now_ms(),
        principal.id,
        principal.name,
        homes,
        devices,
        ingest.shards,
        deactivated,
    )


async def _append(bus: Bus, placed: PlacedEvents) -> Sequence[Outcome]:
    """The outcome of each placed item, in order."""
    last_shard = placed.last_shard
    if last_shard is None:
        return []
    return await bus.append_all(placed.commands(bus.prefixes), len(placed), last_shard)


async def _append_some(bus: Bus, placed: PlacedEvents, refused: set[int]) -> list[Outcome]:
    """The same without the `refused` items."""
    items = placed.placed()
    taken = [(shard, envelope) for index, shard, envelope in items if index not in refused]
    stored: list[bytes | BusError] = []
    if taken:
        commands = b"".join(bus.prefixes.xadd(shard, envelope) for shard, envelope in taken)
        stored = await bus.append_all(commands, len(taken), taken[-1][0])
    outcomes = iter(stored)
    return [bound_elsewhere() if index in refused else next(outcomes) for index, _, _ in items]


async def _append_once(ingest: Ingest, once: Once, placed: PlacedEvents, refused: set[int]) -> list[Outcome]:
    """One atomic step for each shard, all at once; the outcome of each placed item, in order."""
    await _claim_key(ingest, once)
    by_shard: dict[int, list[tuple[int, bytes]]] = defaultdict(list)
    outcomes: dict[int, Outcome] = {}
    for index, shard, envelope in placed.placed():
        if index in refused:
            outcomes[index] = bound_elsewhere()
        else:
            by_shard[shard].append((index, envelope))
    steps = [_append_shard(ingest.bus, once, shard, labelled) for shard, labelled in by_shard.items()]
    for done in await asyncio.gather(*steps):
        outcomes.update(done)
    return [outcomes[index] for index in sorted(outcomes)]


async def _claim_key(ingest: Ingest, once: Once) -> None:
    """Raises InvalidInput if the key stands for another body, BusError if nobody can tell."""
    shard = shard_of(int(once.scope_key[:15], 16), ingest.shards)
    if await ingest.bus.append_once(shard, f"{once.scope_key}:bulk", once.fingerprint, []) is None:
        raise key_reused()


async def _append_shard(
    bus: Bus, once: Once, shard: int, labelled: list[tuple[int, bytes]]
) -> dict[int, bytes | BusError]:
    labels = [label for label, _ in labelled]
    envelopes = [envelope for _, envelope in labelled]
    try:
        ids = await bus.append_once(shard, once.scope_key, once.fingerprint, envelopes, labels)
    except (BusUnavailable, NotConfirmed) as error:
        return dict.fromkeys(labels, error)
    if ids is None:
        raise key_reused()
    return dict(zip(labels, ids, strict=True))


def _raise_if_none_stored(items: int, outcomes: Sequence[Outcome]) -> None:
    if not outcomes or isinstance(outcomes[0], bytes):
        return
    failures = [outcome for outcome in outcomes if isinstance(outcome, BusError)]
    if len(failures) < items:
        return
    # One write of unknown outcome makes the whole unknown.
    raise next((failure for failure in failures if isinstance(failure, NotConfirmed)), failures[0])


def _results(outcomes: Sequence[Outcome]) -> list[bytes | str]:
    """Stream ids as they are; a failure as the JSON of its result."""
    # Nearly always all are ids, and nothing is done for each.
    if set(map(type, outcomes)) == {bytes}:
        return cast(list[bytes | str], outcomes)
    return [outcome if isinstance(outcome, bytes) else _failure(outcome) for outcome in outcomes]


def _failure(error: RequestError) -> str:
    return orjson.dumps({"status": error.status, "reason": error.reason, "data": error.data}).decode()
