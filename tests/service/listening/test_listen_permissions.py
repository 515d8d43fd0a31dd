"""What connections receive in a project with access by permission: memberships do not count."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

import pytest
import pytest_asyncio

from kit.client import Answer, Refused, listen, refusal
from kit.homes import PATH, READ
from kit.node import NodeProcess, eventually
from kit.tenant import Account, Tenant, tenant_of


@dataclass
class PermittedHome:
    """A home of `member` with a device and an entity in it; `guest` is a member of nothing."""

    tenant: Tenant
    member: Account
    guest: Account
    home: int
    device: Account
    entity: str = "Küche & Bad"

    @property
    def subjects(self) -> dict[str, str]:
        return {"homeId": str(self.home), "deviceId": str(self.device.id), "entityId": self.entity}

    def permission(self, name: str) -> str:
        return f"{READ[name]}:{self.subjects[name]}"

    def path(self, *names: str, **more: str) -> str:
        return f"{PATH}?{urlencode([*((name, self.subjects[name]) for name in names), *more.items()])}"

    async def grant(self, account: Account, *names: str) -> None:
        for name in names:
            await self.tenant.grant(account.id, self.permission(name))

    async def receives(self, account: Account, path: str) -> list[str]:
        """The types of what arrives of an event of the home, of the device and of the entity."""
        async with await listen(self.tenant.url, path, account.key) as socket:
            await self.tenant.send(
                {"homeId": self.home, "eventType": "home"},
                {"deviceId": self.device.id, "eventType": "device"},
                {"homeId": self.home, "entityId": self.entity, "eventType": "entity"},
                {"deviceId": self.device.id, "entityId": self.entity, "eventType": "last"},
            )
            types = []
            while "last" not in types:
                types.append(await socket.receive_type())
        return types[:-1]

    async def refused(self, account: Account, path: str, status: int = 404) -> Answer:
        """What may not be received is as unknown as what does not exist."""
        answer = await refusal(self.tenant.url, path, account.key)
        reason = {403: "PERMISSION_DENIED", 404: "NOT_FOUND"}[status]
        assert (answer.status, answer.json()["reason"]) == (status, reason)
        return answer

    async def refused_soon(self, account: Account, path: str) -> None:
        """Until its tail has read of a change, a node may let in by what it remembers; and then closes."""

        async def is_refused() -> bool:
            try:
                async with await listen(self.tenant.url, path, account.key):
                    return False
            except Refused as error:
                return error.answer.status == 404

        await eventually(is_refused)


@pytest_asyncio.fixture
async def permitted(node: NodeProcess) -> AsyncIterator[PermittedHome]:
    async with tenant_of(node, access_control="permission") as tenant:
        member, guest = await tenant.user(), await tenant.user()
        home = await tenant.home(member)
        made = PermittedHome(tenant, member, guest, home, await tenant.device(home))
        await tenant.entity(made.entity, home)
        yield made


RECEIVED: Final = {"homeId": ["home", "device", "entity"], "deviceId": ["device"], "entityId": ["entity"]}


@pytest.mark.parametrize("name", READ)
async def test_permission_opens_its_filter_only(permitted: PermittedHome, name: str) -> None:
    await permitted.grant(permitted.guest, name)
    assert await permitted.receives(permitted.guest, permitted.path(name)) == RECEIVED[name]
    for other in READ.keys() - {name}:
        await permitted.refused(permitted.guest, permitted.path(other))
        await permitted.refused(permitted.member, permitted.path(other))
    # A member without the permission is as anybody else.
    await permitted.refused(permitted.member, permitted.path(name))


async def test_listening_by_permission_needs_a_filter(permitted: PermittedHome) -> None:
    await permitted.grant(permitted.guest, *READ)
    await permitted.refused(permitted.guest, PATH, 403)
    answer = await refusal(permitted.tenant.url, f"{PATH}?authToken={permitted.guest.key}", None)
    assert answer.status == 403


async def test_chosen_filter_needs_its_permission(
    permitted: PermittedHome,
) -> None:
    await permitted.grant(permitted.guest, "deviceId")
    assert await permitted.receives(permitted.guest, permitted.path("homeId", "deviceId")) == ["device"]
    await permitted.refused(permitted.guest, permitted.path("deviceId", "entityId"))
    await permitted.grant(permitted.guest, "entityId")
    assert await permitted.receives(permitted.guest, permitted.path("homeId", "deviceId", "entityId")) == [
        "entity"
    ]


async def test_every_filter_value_needs_its_permission(permitted: PermittedHome) -> None:
    tenant = permitted.tenant
    await permitted.grant(permitted.guest, *READ)
    other = await tenant.home(permitted.member)
    running_on = (await tenant.device(other)).id
    await tenant.entity("attic", other)
    for name, value in (("homeId", str(other)), ("deviceId", str(running_on)), ("entityId", "attic")):
        await permitted.refused(permitted.guest, f"{permitted.path(name)}&{urlencode({name: value})}")


async def test_forbidden_filter_value_is_refused_as_unknown(permitted: PermittedHome) -> None:
    for name, unknown in (("homeId", "999999999"), ("deviceId", "999999999"), ("entityId", "nothing")):
        answers = [
            await permitted.refused(permitted.guest, path)
            for path in (permitted.path(name), f"{PATH}?{urlencode({name: unknown})}")
        ]
        assert len({(each.body, str({**each.headers, "date": ""})) for each in answers}) == 1


async def test_device_is_received_in_its_present_home(permitted: PermittedHome) -> None:
    tenant, path = permitted.tenant, permitted.path("deviceId")
    await permitted.grant(permitted.guest, "deviceId")
    await tenant.store.devices.move(tenant.project, permitted.device.id, None)
    await permitted.refused_soon(permitted.guest, path)
    other = await tenant.home(permitted.member)
    await tenant.store.devices.move(tenant.project, permitted.device.id, other)
    async with await listen(tenant.url, path, permitted.guest.key) as socket:

        async def is_taken() -> bool:
            status, _ = await tenant.put(
                f"/devices/{permitted.device.id}/event", permitted.device.key, {"eventType": "here"}
            )
            return status == 204

        # Until its tail has read of the move the node takes nothing of a device in no home.
        await eventually(is_taken)
        assert (await socket.receive_json())["homeId"] == other


async def test_entity_is_received_in_bound_home_only(permitted: PermittedHome) -> None:
    tenant, path = permitted.tenant, permitted.path("entityId")
    await permitted.grant(permitted.guest, "entityId")
    await tenant.store.entities.delete(tenant.project, permitted.entity)
    await permitted.refused_soon(permitted.guest, path)
    other = await tenant.home(permitted.member)
    await tenant.entity(permitted.entity, other)
    async with await listen(tenant.url, path, permitted.guest.key) as socket:
        await tenant.send({"homeId": other, "entityId": permitted.entity, "eventType": "here"})
        assert (await socket.receive_json())["homeId"] == other


async def test_permission_for_deleted_home_opens_nothing(permitted: PermittedHome) -> None:
    await permitted.grant(permitted.guest, "homeId")
    await permitted.tenant.store.homes.delete(permitted.tenant.project, permitted.home)
    await permitted.refused_soon(permitted.guest, permitted.path("homeId"))


async def test_permission_ends_with_its_last_source(permitted: PermittedHome) -> None:
    tenant, groups, path = permitted.tenant, permitted.tenant.store.groups, permitted.path("homeId")
    group = await groups.create(tenant.project, "night watch")
    await tenant.grant_group(group.id, permitted.permission("homeId"))
    await permitted.refused(permitted.guest, path)
    await groups.enter(tenant.project, group.id, permitted.guest.id)
    await permitted.grant(permitted.guest, "homeId")
    assert await permitted.receives(permitted.guest, path)
    await tenant.revoke(permitted.guest.id, permitted.permission("homeId"))
    assert await permitted.receives(permitted.guest, path)
    await groups.quit(tenant.project, group.id, permitted.guest.id)
    await permitted.refused_soon(permitted.guest, path)


async def test_write_permission_opens_no_filter(permitted: PermittedHome) -> None:
    await permitted.tenant.grant(permitted.guest.id, f"write:home:{permitted.home}")
    await permitted.tenant.grant(permitted.guest.id, f"write:device:{permitted.device.id}")
    for name in READ:
        await permitted.refused(permitted.guest, permitted.path(name))


async def test_permissions_do_not_count_with_access_by_membership(tenant: Tenant) -> None:
    member, guest = await tenant.user(), await tenant.user()
    permitted = PermittedHome(tenant, member, guest, await tenant.home(member), Account(0, ""))
    await permitted.grant(guest, "homeId")
    await permitted.refused(guest, permitted.path("homeId"))
    async with await listen(tenant.url, PATH, member.key) as socket:
        assert await socket.is_alive()
