"""Homes with their users and devices, as many tests need them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Self
from urllib.parse import urlencode

from kit.client import Socket, listen
from kit.tenant import Account, Reply, Tenant


@dataclass
class HomeWithMembers:
    """A home with an owner and a member, a stranger in another home, and keys of the project."""

    tenant: Tenant
    owner: Account
    member: Account
    stranger: Account
    reader: str
    admin: str
    home: int
    elsewhere: int

    @property
    def path(self) -> str:
        return f"/homes/{self.home}"

    @property
    def members(self) -> str:
        return f"{self.path}/members"

    async def ask(self, method: str, path: str, key: str | None, body: Any = None) -> Reply:
        return await self.tenant.ask(method, path, key, body)

    async def add(self, key: str, **account: Any) -> Reply:
        """Ask for a new member."""
        return await self.ask("POST", self.members, key, account)

    async def set_role(self, key: str, user: int, role: str) -> Reply:
        """Ask for another role of a member."""
        return await self.ask("PATCH", f"{self.members}/{user}", key, {"role": role})

    async def roles(self) -> dict[int, str]:
        """The role of each member."""
        answer = await self.ask("GET", self.members, self.reader)
        return {each["userId"]: each["role"] for each in answer.body}


async def home_with_members(tenant: Tenant) -> HomeWithMembers:
    """In a project with e-mail accounts."""
    owner, member, stranger = await tenant.user(), await tenant.user(), await tenant.user()
    home, elsewhere = await tenant.home(owner, members=[member]), await tenant.home(stranger)
    reader, admin = await tenant.project_key("read"), await tenant.project_key("admin")
    return HomeWithMembers(tenant, owner, member, stranger, reader, admin, home, elsewhere)


@dataclass(frozen=True)
class HomeWithDevice:
    """A home with an owner and a device, and a user without access to it."""

    tenant: Tenant
    owner: Account
    stranger: Account
    home: int
    device: Account
    reader: str
    """A project key with the permission to read."""

    async def call(self, method: str, path: str, key: str | None, **options: Any) -> tuple[int, Any]:
        headers = {} if key is None else {"Authorization": f"ModeCloud {key}"}
        async with self.tenant.http.request(method, path, headers=headers, **options) as answer:
            return answer.status, await answer.json() if await answer.read() else None

    async def get(self, path: str, key: str | None) -> tuple[int, Any]:
        return await self.call("GET", path, key)


async def home_with_device(tenant: Tenant) -> HomeWithDevice:
    owner, stranger = await tenant.user(), await tenant.user()
    home = await tenant.home(owner)
    device, reader = await tenant.device(home), await tenant.project_key("read")
    return HomeWithDevice(tenant, owner, stranger, home, device, reader)


PATH: Final = "/userSession/websocket"
READ: Final = {
    "homeId": "read:home-events",
    "deviceId": "read:device",
    "entityId": "read:entity-events",
}
"""What each filter needs where permissions decide."""


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
            await tenant.entity(entity, home)
        return cls(tenant, member, guest, homes, devices, entities)

    def subject(self, name: str, number: int) -> str:
        """What the filter `name` says to mean that home, its device or its entity."""
        return {
            "homeId": str(self.homes[number]),
            "deviceId": str(self.devices[number].id),
            "entityId": self.entities[number],
        }[name]

    def permission(self, name: str, number: int) -> str:
        """What the filter `name` on that home, its device or its entity needs."""
        return f"{READ[name]}:{self.subject(name, number)}"

    def path(self, name: str, *numbers: int) -> str:
        return f"{PATH}?{urlencode([(name, self.subject(name, each)) for each in numbers])}"

    async def grant_all(self, account: Account) -> None:
        """Each permission that a filter of these homes needs."""
        for name in READ:
            for number in range(2):
                await self.tenant.grant(account.id, self.permission(name, number))

    async def bind_anew(self, entity: str, home: int) -> None:
        await self.tenant.store.entities.delete(self.tenant.project, entity)
        await self.tenant.entity(entity, home)

    async def happen(self, kind: str, *numbers: int) -> None:
        """An event in these homes, or in both, that matches each of their filters."""
        for each in numbers or (0, 1):
            event = {"deviceId": self.devices[each].id, "entityId": self.entities[each], "eventType": kind}
            await self.tenant.send(event)

    async def listener(self, account: Account, path: str, homes: int) -> Socket:
        """A subscriber that has received an event of each home.

        A node cannot tell a change in the millisecond of the handshake from one before it.
        """
        socket = await listen(self.tenant.url, path, account.key)
        await self.happen("first")
        for _ in range(homes):
            assert await socket.receive_type() == "first"
        return socket
