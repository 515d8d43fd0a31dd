"""How long lists are read: in pages that keep nobody waiting, and no more than what is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from homewire.entities.store import Entity
from homewire.kv.store import MAX_BYTES_READ, MAX_PAIRS_READ, Owner
from homewire.store.keys import ProjectSlot
from homewire.store.script import Script
from kit.tenant import StoredProject, new_project

LARGE = 60_000


Replies = list[list[bytes]]


@pytest_asyncio.fixture
async def tenant(redis_client: Redis) -> StoredProject:
    return await new_project(redis_client)


def listen(monkeypatch: pytest.MonkeyPatch, database: Any) -> Replies:
    """What reading scripts reply from here on."""
    replies, ask = Replies(), database.ask

    async def listened(script: Script, keys: Sequence[str], arguments: Sequence[Any] = ()) -> Any:
        reply = await ask(script, keys, arguments)
        replies.append([each for each in reply if isinstance(each, bytes)])
        return reply

    monkeypatch.setattr(database, "ask", listened)
    return replies


def longest(replies: Replies) -> int:
    return max(sum(map(len, reply)) for reply in replies)


@pytest.mark.parametrize("counted", [True, False])
async def test_large_values_are_read_in_small_replies(
    tenant: StoredProject, monkeypatch: pytest.MonkeyPatch, counted: bool
) -> None:
    """Of 80 large values among 600 small ones."""
    user = await tenant.user()
    owner = Owner(tenant.project, "home", await tenant.home(user))
    slot = tenant.slot
    values = {f"k{number:03}": "7 1" for number in range(600)}
    values |= {f"k{number:03}": "7 " + "1" * LARGE for number in range(100, 180)}
    stored: dict[Any, Any] = {**values, **({"_bytes": str(80 * LARGE)} if counted else {})}
    await tenant.redis.hset(slot.values("home", owner.id), mapping=stored)
    await tenant.redis.zadd(slot.value_keys("home", owner.id), dict.fromkeys(values, 0))
    replies = listen(monkeypatch, tenant.store.key_values._database)
    whole, total = await tenant.store.key_values.find(owner)
    assert {each.key: b"7 " + each.value for each in whole} == {k: v.encode() for k, v in values.items()}
    assert [each.key for each in whole] == sorted(values)
    assert total == 600
    assert longest(replies) < MAX_BYTES_READ + LARGE + 8 * MAX_PAIRS_READ
    assert 80 * LARGE / (MAX_BYTES_READ + LARGE) < len(replies) < 80 * LARGE / MAX_BYTES_READ + 2
    part, total = await tenant.store.key_values.find(owner, "k", skip=90, limit=100)
    assert ([each.key for each in part], total) == (sorted(values)[90:190], 600)
    assert await tenant.store.key_values.find(owner, "k", skip=600) == ([], 600)


async def test_of_entities_no_more_is_read_than_is_asked_for(
    tenant: StoredProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 80 large ones among 300 small ones; all of them, if their classes are asked for, but in pages."""
    store, project = tenant.store, tenant.project
    user = await tenant.user()
    home, other = [await tenant.home(user) for _ in range(2)]
    large = b'{"text":"' + b"x" * LARGE + b'"}'
    for number in range(300):
        attributes, kind = (large, "large") if 100 <= number < 180 else (None, "small")
        entity = Entity(f"e{number:03}", project, home, kind, attributes=attributes)
        await store.entities.create(entity, 1_000)
    await store.entities.create(Entity("e150b", project, other, "small"), 1_000)
    names = [f"e{number:03}" for number in range(300)]
    replies = listen(monkeypatch, store.entities._database)

    found, total = await store.entities.find(project, home, skip=95, limit=10)
    assert ([each.id for each in found], total) == (names[95:105], 300)
    assert sum(len(reply) for reply in replies) == 2 * 10
    everything, total = await store.entities.find(project)
    assert ([each.id for each in everything], total) == (sorted([*names, "e150b"]), 301)
    assert {each.id for each in everything if each.attributes == large} == set(names[100:180])
    some, total = await store.entities.find(project, home, {"large"}, skip=70, limit=20)
    assert ([each.id for each in some], total) == (names[170:180], 80)
    assert longest(replies) < MAX_BYTES_READ + LARGE + 300 * 200
    assert await store.entities.find(project, home, skip=300) == ([], 300)
    assert await store.entities.find(project, home, limit=0) == ([], 300)

    # The tombstone alone stands.
    await tenant.redis.zadd(ProjectSlot(project).deleted_homes, {str(home): home})
    left, total = await store.entities.find(project)
    assert ([each.id for each in left], total) == (["e150b"], 1)
    assert await store.entities.find(project, home) == ([], 0)
