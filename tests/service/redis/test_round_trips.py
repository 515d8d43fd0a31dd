"""A change takes two round trips to Redis: its script, and the copies of what the script wrote."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from kit.redis_server import monitored
from kit.tenant import Account, Tenant

ATTEMPTS = 8
BESIDE = {"XLEN", "XDEL"}
"""The relay checks pending outboxes by a timer, and deletes copied entries after the answer."""


async def commands_of(tenant: Tenant, request: Awaitable[Any]) -> list[str]:
    """The names of the commands about the project that Redis received until the request was answered.

    Copies to several shards go out in one write: they are one `copy`.
    """
    slot, copied, marker = f"{{p{tenant.project}}}", f":copied:{tenant.project} ", secrets.token_hex(8)
    names: list[str] = []
    async with monitored(tenant.redis) as monitor:
        status = await request
        assert status in (200, 204), status
        await tenant.redis.echo(marker)
        while marker not in (command := await monitor.next_command())["command"]:
            text = command["command"]
            if command["client_type"] != "lua" and (slot in text or copied in f"{text} "):
                names.append("copy" if copied in f"{text} " else text.split()[0].upper())
    waited_for = [name for name in names if name not in BESIDE]
    return [
        name
        for name, after in zip(waited_for, [*waited_for[1:], ""], strict=True)
        if (name, after) != ("copy", "copy")
    ]


async def end_session(tenant: Tenant, owner: Account, home: int) -> Awaitable[int]:
    user = await tenant.user()
    await tenant.store.homes.add_member(tenant.project, home, user.id)
    assert await status_of(tenant, "GET", "/userSession", user.key) == 200
    return status_of(tenant, "DELETE", "/userSession", user.key)


async def put_value(tenant: Tenant, owner: Account, home: int) -> Awaitable[int]:
    return status_of(tenant, "PUT", f"/homes/{home}/kv/color", owner.key, {"value": "red"})


async def remove_member(tenant: Tenant, owner: Account, home: int) -> Awaitable[int]:
    member = await tenant.user()
    await tenant.store.homes.add_member(tenant.project, home, member.id)
    return status_of(tenant, "DELETE", f"/homes/{home}/members/{member.id}", owner.key)


async def status_of(tenant: Tenant, method: str, path: str, key: str, body: Any = None) -> int:
    headers = {"Authorization": f"ModeCloud {key}"}
    async with tenant.http.request(method, path, json=body, headers=headers) as answer:
        await answer.read()
        return answer.status


CHANGES = {
    "DELETE /userSession": end_session,
    "PUT kv": put_value,
    "DELETE member": remove_member,
}


@pytest.mark.parametrize("name", CHANGES)
async def test_change_takes_two_round_trips(tenant: Tenant, name: str) -> None:
    prepare: Callable[[Tenant, Account, int], Awaitable[Awaitable[int]]] = CHANGES[name]
    owner = await tenant.user()
    home = await tenant.home(owner)
    # A control record that the node reads late, or that a test beside this one causes, makes its caches cold.
    for _ in range(ATTEMPTS):
        change = await prepare(tenant, owner, home)
        await tenant.announced()
        commands = await commands_of(tenant, change)
        if commands == ["EVALSHA", "copy"]:
            return
    assert commands == ["EVALSHA", "copy"]
