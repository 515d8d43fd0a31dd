"""Two homes with something in each, for the tests of who hears which of them how long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import urlencode

from homewire.entities.models import Entity
from homewire.permissions.models import Permission, PermissionKind
from kit.client import Socket, listen
from kit.tenant import Account, Tenant

PATH: Final = "/userSession/websocket"
READ: Final = {
    "homeId": PermissionKind.READ_HOME_EVENTS,
    "deviceId": PermissionKind.READ_DEVICE,
    "entityId": PermissionKind.READ_ENTITY_EVENTS,
}
"""What each filter needs where rights say who hears."""


@dataclass
class TwoHomes:
    """Two homes of `member`, each with a device and an entity; `guest` is a member of neither."""

    tenant: Tenant
    member: Account
    guest: Account
    homes: list[int]
    devices: list[Account]
    entities: tuple[str, str]

    @classmethod
    async def of(cls, tenant: Tenant, entities: tuple[str, str] = ("kitchen", "Flur")) -> Self:
        """Make them, with an entity of that id in each."""
        member, guest = await tenant.user(), await tenant.user()
        homes = await tenant.homes(member, 2)
        devices = [await tenant.device(home) for home in homes]
        for entity, home in zip(entities, homes, strict=True):
            await tenant.store.entities.create(Entity(entity, tenant.project, home, "room"), 10)
        return cls(tenant, member, guest, homes, devices, entities)

    def subject(self, name: str, number: int) -> str:
        """What the filter `name` says to mean that home, its device or its entity."""
        return {
            "homeId": str(self.homes[number]),
            "deviceId": str(self.devices[number].id),
            "entityId": self.entities[number],
        }[name]

    def right(self, name: str, number: int) -> Permission:
        return Permission(READ[name], self.subject(name, number))

    def path(self, name: str, *numbers: int) -> str:
        return f"{PATH}?{urlencode([(name, self.subject(name, each)) for each in numbers])}"

    async def grant_all(self, who: Account) -> None:
        """Every right that a filter of these homes needs."""
        for name in READ:
            for number in range(2):
                await self.tenant.store.permissions.grant(
                    self.tenant.project, who.id, self.right(name, number)
                )

    async def bind_anew(self, entity: str, home: int) -> None:
        entities, project = self.tenant.store.entities, self.tenant.project
        await entities.delete(project, entity)
        await entities.create(Entity(entity, project, home, "room"), 10)

    async def happen(self, kind: str, *numbers: int) -> None:
        """An event in these homes, or in both, that every filter of theirs lets through."""
        for each in numbers or (0, 1):
            event = {"deviceId": self.devices[each].id, "entityId": self.entities[each], "eventType": kind}
            await self.tenant.send(event)

    async def listener(self, who: Account, path: str, homes: int) -> Socket:
        """Who heard of so many of the homes already: a change in the millisecond of its handshake would be
        one that its node can't tell from one before it."""
        socket = await listen(self.tenant.url, path, who.key)
        await self.happen("first")
        for _ in range(homes):
            assert await socket.receive_type() == "first"
        return socket
