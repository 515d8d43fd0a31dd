"""A home with people in and around it, for the tests of homes and members."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from homewire.projects.models import KeyScope
from kit.tenant import Account, Reply, Tenant


@dataclass
class House:
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

    async def add(self, key: str, **who: Any) -> Reply:
        """Ask for a new member."""
        return await self.ask("POST", self.members, key, who)

    async def set_role(self, key: str, user: int, role: str) -> Reply:
        """Ask for another role of a member."""
        return await self.ask("PATCH", f"{self.members}/{user}", key, {"role": role})

    async def roles(self) -> dict[int, str]:
        """Who is what in the home."""
        answer = await self.ask("GET", self.members, self.reader)
        return {each["userId"]: each["role"] for each in answer.body}


async def key_of(tenant: Tenant, *permissions: KeyScope) -> str:
    """A new project key."""
    return (await tenant.store.project_keys.create(tenant.project, "key", permissions))[1]


async def house_of(tenant: Tenant) -> House:
    """In a project with e-mail accounts."""
    owner, member, stranger = await tenant.user(), await tenant.user(), await tenant.user()
    home, elsewhere = await tenant.home(owner), await tenant.home(stranger)
    await tenant.store.homes.add_member(tenant.project, home, member.id)
    reader, admin = await key_of(tenant, KeyScope.READ), await key_of(tenant, KeyScope.ADMIN)
    return House(tenant, owner, member, stranger, reader, admin, home, elsewhere)
