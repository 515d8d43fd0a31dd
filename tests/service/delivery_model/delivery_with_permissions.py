"""Several plans at once, on the same nodes; and those where permissions decide."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from time import monotonic
from typing import Final

import aiohttp
import delivery_model
from delivery_model import NOWHERE, Fact, Kind
from delivery_nodes import DeliveryRun
from delivery_permission_plan import GROUP
from delivery_steps import Bind, Grant, Plan, Revoke, Step

from kit.two_nodes import Pair

MANY: Final = 100
READS: Final = {
    Kind.HOMES: "read:home-events",
    Kind.DEVICES: "read:device",
    Kind.ENTITIES: "read:entity-events",
}


class DeliveryRunByPermission(DeliveryRun):
    """A project with access by permission, with a group of users."""

    _group = 0

    async def _prepare(self) -> None:
        store, project = self._stored.store, self._stored.project
        for entity, home in self.plan.bindings:
            await self._make_entity(entity, home)
            self.truth.bindings[entity] = Fact(home)
        self._granted: set[tuple[int | None, delivery_model.Permission]] = set()
        self._group = (await store.groups.create(project, "group")).id
        for user in GROUP:
            await store.groups.enter(project, self._group, self._users[user])
        for grant in self.plan.grants:
            await self._change(Grant(*grant))

    async def _make_entity(self, entity: str, home: int) -> None:
        await self._stored.entity(entity, self.real_homes[home], "thing")

    async def _change(self, step: Step) -> None:
        match step:
            case Grant(user, permission):
                await self._grant(user, permission)
            case Revoke(user, permission):
                await self._revoke(user, permission)
            case Bind(entity, home):
                await self._bind(entity, home)
            case _:
                await super()._change(step)

    async def _grant(self, user: int | None, permission: delivery_model.Permission) -> None:
        asked, real = monotonic(), self._real(permission)
        if user is None:
            await self._stored.grant_group(self._group, real)
        else:
            await self._stored.grant(self._users[user], real)
        self._granted.add((user, permission))
        self._note_permissions(user, permission, asked)

    async def _revoke(self, user: int | None, permission: delivery_model.Permission) -> None:
        asked, real = monotonic(), self._real(permission)
        if user is None:
            await self._stored.revoke_group(self._group, real)
        else:
            await self._stored.revoke(self._users[user], real)
        self._granted.remove((user, permission))
        self._note_permissions(user, permission, asked)

    async def _bind(self, entity: str, home: int) -> None:
        truth, bound = (
            self.truth.bindings[entity],
            await self._stored.store.entities.get(self._stored.project, entity),
        )
        if bound is not None:
            asked = monotonic()
            await self._stored.store.entities.delete(self._stored.project, entity)
            truth.become(NOWHERE, asked, monotonic())
        if home != NOWHERE:
            asked = monotonic()
            await self._make_entity(entity, home)
            truth.become(home, asked, monotonic())

    def _note_permissions(
        self, whose: int | None, permission: delivery_model.Permission, asked: float
    ) -> None:
        """Who has it from a grant and from the group loses it with the last of the two."""
        for user in GROUP if whose is None else (whose,):
            has_it = (user, permission) in self._granted or (
                user in GROUP and (None, permission) in self._granted
            )
            fact = self.truth.permissions[user, permission]
            if fact.changes[-1].value != has_it:
                fact.become(has_it, asked, monotonic())

    def _real(self, permission: delivery_model.Permission) -> str:
        real = {Kind.HOMES: self.real_homes, Kind.DEVICES: self.real_devices}.get(permission.kind)
        subject = permission.what if real is None else real[int(permission.what)]
        return f"{READS[permission.kind]}:{subject}"


@asynccontextmanager
async def worlds(plans: Sequence[Plan], pair: Pair) -> AsyncIterator[list[DeliveryRun]]:
    """A run for each plan, all on the same nodes."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(aiohttp.ClientSession(node.url)) for node in pair.nodes]
        made = [
            (DeliveryRunByPermission if plan.by_permission else DeliveryRun)(plan, pair, clients)
            for plan in plans
        ]
        for run in made:
            stack.push_async_callback(run.leave)
            await run.build()
        yield made
