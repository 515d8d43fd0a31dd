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

from homewire.entities.store import Entity
from homewire.permissions.models import Permission, PermissionKind
from kit.two_nodes import Pair

MANY: Final = 100
READS: Final = {
    Kind.HOMES: PermissionKind.READ_HOME_EVENTS,
    Kind.DEVICES: PermissionKind.READ_DEVICE,
    Kind.ENTITIES: PermissionKind.READ_ENTITY_EVENTS,
}


class DeliveryRunByPermission(DeliveryRun):
    """A project with access by permission, with a group of users."""

    _group = 0

    async def _prepare(self) -> None:
        store, project = self._store, self._project
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
        made = Entity(entity, self._project, self.real_homes[home], "thing")
        await self._store.entities.create(made, MANY)

    async def _change(self, step: Step) -> None:
        match step:
            case Grant(user, right):
                await self._grant(user, right)
            case Revoke(user, right):
                await self._revoke(user, right)
            case Bind(entity, home):
                await self._bind(entity, home)
            case _:
                await super()._change(step)

    async def _grant(self, user: int | None, right: delivery_model.Permission) -> None:
        asked, real = monotonic(), self._real(right)
        if user is None:
            await self._store.groups.grant(self._project, self._group, real)
        else:
            await self._store.permissions.grant(self._project, self._users[user], real)
        self._granted.add((user, right))
        self._note_rights(user, right, asked)

    async def _revoke(self, user: int | None, right: delivery_model.Permission) -> None:
        asked, real = monotonic(), self._real(right)
        if user is None:
            await self._store.groups.revoke(self._project, self._group, real)
        else:
            await self._store.permissions.revoke(self._project, self._users[user], real)
        self._granted.remove((user, right))
        self._note_rights(user, right, asked)

    async def _bind(self, entity: str, home: int) -> None:
        truth, bound = self.truth.bindings[entity], await self._store.entities.get(self._project, entity)
        if bound is not None:
            asked = monotonic()
            await self._store.entities.delete(self._project, entity)
            truth.become(NOWHERE, asked, monotonic())
        if home != NOWHERE:
            asked = monotonic()
            await self._make_entity(entity, home)
            truth.become(home, asked, monotonic())

    def _note_rights(self, whose: int | None, right: delivery_model.Permission, asked: float) -> None:
        """Who has it from a grant and from the group loses it with the last of the two."""
        for user in GROUP if whose is None else (whose,):
            has_it = (user, right) in self._granted or (user in GROUP and (None, right) in self._granted)
            fact = self.truth.rights[user, right]
            if fact.changes[-1].value != has_it:
                fact.become(has_it, asked, monotonic())

    def _real(self, right: delivery_model.Permission) -> Permission:
        real = {Kind.HOMES: self.real_homes, Kind.DEVICES: self.real_devices}.get(right.kind)
        subject = right.what if real is None else real[int(right.what)]
        return Permission(READS[right.kind], str(subject))


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
