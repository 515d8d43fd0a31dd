"""A home with people and a device, and how they call the REST service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from homewire.projects.models import KeyScope
from kit.tenant import Account, Tenant


@dataclass(frozen=True)
class House:
    """A home with an owner and a device, and somebody who has nothing to do with it."""

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


async def house_of(tenant: Tenant) -> House:
    owner, stranger = await tenant.user(), await tenant.user()
    home = await tenant.home(owner)
    _, reader = await tenant.store.project_keys.create(tenant.project, "reader", {KeyScope.READ})
    return House(tenant, owner, stranger, home, await tenant.device(home), reader)
