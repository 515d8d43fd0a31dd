"""Deletions leave no orphans: the key space of a whole Redis before and after the full life of projects."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from full_life import Life

from kit.accounts import tenant_with_app
from kit.in_redis import DELETED_PROJECTS, PROJECTS, UNFINISHED
from kit.key_space import kind, lasting, names_of
from kit.node import NodeProcess, eventually, private_node
from kit.tenant import ACCOUNT_SYSTEMS, project_of
from kit.webhook_receiver import receiving

WITHIN_S = 60.0
"""Housekeeping looks six seconds behind a deletion, and six projects are deleted at once."""

KEPT_OF_A_PROJECT: Final = frozenset(
    {"project", "outbox", "apps", "project_keys", "project_key:#", "key:#", "usage", "expiring"}
)
"""What a project still has when all its users, homes and devices are gone, without a TTL."""
MADE_BY_ALL: Final = KEPT_OF_A_PROJECT | {
    "users", "user:#", "user:#:homes", "user:#:sessions", "user:#:ended", "session:#", "homes", "home:#",
    "home:#:members", "home:#:devices", "home:#:entities", "home:#:values", "home:#:value_keys", "devices",
    "places", "device:#", "device:#:presence", "device:#:values", "device:#:value_keys",
    "device:#:commands", "device:#:command_ends", "request:#", "entities", "entity_places", "entity_ids",
    "sessions", "device:#:sessions", "modules", "module:good", "module:deaf", "module:deaf:dead",
}  # fmt: skip
"""Of every kind of project there are these keys, before anything is deleted."""
MADE_BY: Final = {
    "email": {"emails", "user:#:proofs", "proof:#", "claims"},
    "phone": {"phones", "user:#:proofs", "provisioning:#"},
    "byou": {"externals", "claims"},
}
KEPT_OF_A_DEPLOYMENT: Final = (
    r"hw:(ids|\{deployment\})", r"hw:\{projects\}:(live|unfinished)", r"hw:\{nodes\}:(leases|projects:\w+)",
    r"hw:\{modules\}:(version|projects|waiting)", r"hw:\{relay\}:pending", r"hw:\{e\d+\}:(events|epoch)",
)  # fmt: skip
"""What a deployment has without a TTL, whatever projects it has."""


async def nothing(left: Callable[[], Awaitable[Any]]) -> None:
    """Wait until nothing is left; say what it is, if that does not come."""
    last: list[Any] = []

    async def is_gone() -> bool:
        last[:] = [await left()]
        return not last[0]

    try:
        await eventually(is_gone, WITHIN_S)
    except TimeoutError:
        pytest.fail(f"left: {sorted(last[0])}")


@asynccontextmanager
async def life_of(node: NodeProcess, accounts: str) -> AsyncIterator[Life]:
    """With phone accounts the devices are provisioned on demand."""
    on_demand = accounts == "phone"
    async with tenant_with_app(node, accounts, on_demand=on_demand) as people, receiving() as receiver:
        life = Life(node, people, accounts, on_demand, receiver)
        await life.begin()
        pattern = people.slot.prefix + "*"
        made = {kind(name) for name in await names_of(people.redis, pattern)}
        # The more is made, the more a deletion can forget.
        assert made >= MADE_BY_ALL | MADE_BY[accounts], (MADE_BY_ALL | MADE_BY[accounts]) - made
        yield life


async def deleted_piece_by_piece(node: NodeProcess, accounts: str) -> None:
    async with life_of(node, accounts) as life:
        redis, pattern = life.people.redis, life.people.slot.prefix + "*"
        await life.end()

        async def left() -> set[str]:
            return {kind(name) for name in await lasting(redis, pattern)} - KEPT_OF_A_PROJECT

        await nothing(left)
        # Of the keys only those of the project.
        keys = {name for name in await lasting(redis, pattern) if kind(name) == "key:#"}
        records = {name for name in await lasting(redis, pattern) if kind(name) == "project_key:#"}
        assert len(keys) == len(records) == 2


async def deleted_as_a_whole(node: NodeProcess, accounts: str) -> None:
    async with life_of(node, accounts) as life:
        redis, project = life.people.redis, life.people.project
        # Without the sweep that the CLI does behind it: it is left to housekeeping.
        await life.people.store.projects.delete(project)

        async def is_forgotten() -> bool:
            return await redis.zscore(UNFINISHED, str(project)) is None

        await eventually(is_forgotten, WITHIN_S)

        async def left() -> set[str]:
            return await names_of(redis, project_of(redis, project).slot.prefix + "*")

        await nothing(left)
        for index in (PROJECTS, DELETED_PROJECTS):
            assert await redis.zscore(index, str(project)) is None


@pytest.mark.timeout(300)
async def test_deletions_leave_no_orphans() -> None:
    settings = {"webhook_private_addresses": "true", "webhook_tries": 2, "webhook_backoff_s": 0.05}
    with private_node(**settings) as node:
        # At once, because housekeeping is waited for.
        await asyncio.gather(
            *(deleted_piece_by_piece(node, accounts) for accounts in ACCOUNT_SYSTEMS),
            *(deleted_as_a_whole(node, accounts) for accounts in ACCOUNT_SYSTEMS),
        )
        async with tenant_with_app(node, "email") as people:
            allowed = re.compile("|".join(KEPT_OF_A_DEPLOYMENT))
            found = await lasting(people.redis)
            deployment = {name for name in found if not re.match(r"hw:\{p\d+\}:", name)}
            assert {name for name in deployment if not allowed.fullmatch(name)} == set()
