"""One principal that stores all it can: it is bounded, and another tenant's requests go on."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest

from kit.client import listen
from kit.key_space import names_of
from kit.node import NodeProcess, private_node
from kit.tenant import Account, Tenant, tenant_of

BYTES, RECORDS, ENDED, KEYS = 400_000, 300, 5, 20
EVENT = {"eventType": "t", "eventData": {}}
ALWAYS_OPENED, MAX_DERIVED = 10, 20
LOGINS = MAX_DERIVED + ENDED + 20
"""Chained logins of the hostile user: far more than may stay."""


@pytest.fixture(scope="module")
def limited_node() -> Iterator[NodeProcess]:
    limits = {"user_bytes": BYTES, "user_records": RECORDS, "ended_sessions": ENDED, "idempotency_keys": KEYS}
    with private_node(**limits, user_events_per_s=0, device_events_per_s=0) as running:
        yield running


@dataclass
class Hostile:
    """A user, and a device of theirs, that store whatever they can until they are told to stop."""

    tenant: Tenant
    user: Account
    home: int
    device: Account
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    refusals: set[str] = field(default_factory=set)

    @classmethod
    async def of(cls, tenant: Tenant) -> Hostile:
        user = await tenant.user()
        home = await tenant.home(user)
        return cls(tenant, user, home, await tenant.device(home))

    async def go_on(self, attack: Callable[[int], Awaitable[str | None]], at_limit: asyncio.Event) -> None:
        """Again and again; from the first refusal on it is at its limit."""
        for number in itertools.count():
            if self.stopped.is_set():
                return
            refusal = await attack(number)
            if refusal is not None:
                self.refusals.add(refusal)
                at_limit.set()

    async def value(self, number: int) -> str | None:
        path = f"/homes/{self.home}/kv/k{number}"
        status, answer = await self.tenant.put(path, self.user.key, {"value": "x" * 3000})
        return None if status == 204 else f"{status} {answer['reason']} {answer['data']['setting']}"

    async def idempotency_key(self, number: int) -> str | None:
        path = f"/devices/{self.device.id}/event"
        status, answer = await self.tenant.put(path, self.device.key, EVENT, Idempotency_Key=f"k{number}")
        return None if status == 204 else f"{status} {answer['reason']} {answer['data']['limit']}"

    async def login(self, number: int) -> str | None:
        """With the key, and never out: nothing refuses it, since each ends an earlier one."""
        reply = await self.tenant.ask("POST", "/session/login-with-token", None, {"token": self.user.key})
        if reply.status == 403:
            return f"403 {reply.body}"
        assert reply.status == 201, reply
        return "enough logins" if number > LOGINS else None


async def honest_work(tenant: Tenant, user: Account) -> None:
    """Everything that a client does, and each of it succeeds."""
    home = await tenant.home(user)
    device = await tenant.device(home)
    async with await listen(tenant.url, "/userSession/websocket", user.key) as socket:
        for number in range(10):
            status, answer = await tenant.put(f"/homes/{home}/kv/key{number}", user.key, {"value": number})
            assert (status, answer) == (204, None)
            assert (await socket.receive_json())["eventType"] == "_keyValueSaved_"
            status, answer = await tenant.put(
                f"/devices/{device.id}/event", device.key, EVENT, Idempotency_Key=f"k{number}"
            )
            assert (status, answer) == (204, None)
            assert (await socket.receive_json())["eventType"] == "t"
            reply = await tenant.ask("GET", f"/homes/{home}/kv", user.key)
            assert len(reply.body) == number + 1
    login = await tenant.ask("POST", "/session/login-with-token", None, {"token": user.key})
    assert login.status == 201


async def test_user_at_every_limit_does_not_disturb_another_project(limited_node: NodeProcess) -> None:
    async with tenant_of(limited_node) as bad, tenant_of(limited_node) as good:
        hostile, honest = await Hostile.of(bad), await good.user()
        attacks = (hostile.value, hostile.idempotency_key, hostile.login)
        at_limit = [asyncio.Event() for _ in attacks]
        tasks = [
            asyncio.create_task(hostile.go_on(attack, reached))
            for attack, reached in zip(attacks, at_limit, strict=True)
        ]
        try:
            await asyncio.gather(*(reached.wait() for reached in at_limit))
            await honest_work(good, honest)
        finally:
            hostile.stopped.set()
            await asyncio.gather(*tasks)
        assert "403 QUOTA_EXCEEDED user_bytes" in hostile.refusals
        assert "429 TOO_MANY_REQUESTS idempotency_keys" in hostile.refusals
        stored = await bad.store.usage.of(bad.project, f"u{hostile.user.id}")
        assert stored.bytes <= BYTES + (ALWAYS_OPENED + ENDED) * 3000
        # Some sessions are opened beyond it.
        assert stored.records <= RECORDS + ALWAYS_OPENED + ENDED
        async with aclosing(limited_node.redis()) as redis:
            slot = bad.slot
            sessions = await names_of(redis, slot.session("*"))
            assert len({name for name in sessions if name.count(":") == 3}) <= 1 + MAX_DERIVED + ENDED
            # All that may be remembered in the window that ran at the start, and in the next one; the honest
            # device's ten, too.
            assert len(await names_of(redis, "hw:{e*}:once:*")) <= 2 * KEYS + 10
        # Who deletes has room at once.
        for number in range(3):
            reply = await bad.ask("DELETE", f"/homes/{hostile.home}/kv/k{number}", hostile.user.key)
            assert reply.status == 204
        assert await hostile.value(0) is None
        metrics = await limited_node.metrics()
        assert metrics['quota_refused_total{setting="user_bytes"}'] >= 1
        assert metrics['refused_total{limit="idempotency_keys"}'] >= 1
