"""How the values of a home are read: in pages that keep nobody waiting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from nodes import Tenant

from homewire.store.key_values import BYTES_READ, PAIRS_READ, Owner
from homewire.store.keys import ProjectSlot
from homewire.store.scripts.script import Script

LARGE = 60_000


@pytest.mark.parametrize("counted", [True, False])
async def test_large_values_are_read_in_small_replies(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch, counted: bool
) -> None:
    """Of 80 large values among 600 small ones."""
    user = await tenant.user()
    owner = Owner(tenant.project, "home", await tenant.home(user))
    slot = ProjectSlot(tenant.project)
    values = {f"k{number:03}": "7 1" for number in range(600)}
    values |= {f"k{number:03}": "7 " + "1" * LARGE for number in range(100, 180)}
    stored = {**values, **({"_bytes": str(80 * LARGE)} if counted else {})}
    await tenant.redis.hset(slot.values("home", owner.id), mapping=stored)
    await tenant.redis.zadd(slot.value_keys("home", owner.id), dict.fromkeys(values, 0))
    database, replies = tenant.store.key_values._database, list[list[bytes]]()
    ask = database.ask

    async def listened(script: Script, keys: Sequence[str], arguments: Sequence[Any] = ()) -> Any:
        reply = await ask(script, keys, arguments)
        replies.append(reply[1:])
        return reply

    monkeypatch.setattr(database, "ask", listened)
    whole, total = await tenant.store.key_values.find(owner)
    assert {each.key: b"7 " + each.value for each in whole} == {k: v.encode() for k, v in values.items()}
    assert [each.key for each in whole] == sorted(values)
    assert total == 600
    assert max(sum(map(len, reply)) for reply in replies) < BYTES_READ + LARGE + 8 * PAIRS_READ
    assert len(replies) == 5
    part, total = await tenant.store.key_values.find(owner, "k", skip=90, limit=100)
    assert ([each.key for each in part], total) == (sorted(values)[90:190], 600)
    assert await tenant.store.key_values.find(owner, "k", skip=600) == ([], 600)
