"""Who hears what in a project with access by permission: rights alone, and memberships not at all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

import pytest
import pytest_asyncio

from homewire.entities.models import Entity
from homewire.permissions.models import Permission, PermissionKind
from homewire.projects.models import AccessControl
from kit.client import Answer, Refused, listen, refusal
from kit.node import NodeProcess, eventually
from kit.tenant import Account, Tenant, tenant_of
from kit.two_homes import PATH, READ


@dataclass
class House:
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

    def right(self, name: str) -> Permission:
        return Permission(READ[name], self.subjects[name])

    def path(self, *names: str, **more: str) -> str:
        return f"{PATH}?{urlencode([*((name, self.subjects[name]) for name in names), *more.items()])}"

    async def grant(self, who: Account, *names: str) -> None:
        for name in names:
            await self.tenant.store.permissions.grant(self.tenant.project, who.id, self.right(name))

    async def receives(self, who: Account, path: str) -> list[str]:
        """The types of what arrives of an event of the home, of the device and of the entity."""
        async with await listen(self.tenant.url, path, who.key) as socket:
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

    async def refused(self, who: Account, path: str, status: int = 404) -> Answer:
        """What may not be received is as unknown as what does not exist."""
        answer = await refusal(self.tenant.url, path, who.key)
        reason = {403: "PERMISSION_DENIED", 404: "NOT_FOUND"}[status]
        assert (answer.status, answer.json()["reason"]) == (status, reason)
        return answer

    async def refused_soon(self, who: Account, path: str) -> None:
        """Until its tail has read of a change, a node may let in by what it remembers; and then closes."""

        async def is_refused() -> bool:
            try:
                async with await listen(self.tenant.url, path, who.key):
                    return False
            except Refused as error:
                return error.answer.status == 404

        await eventually(is_refused)


@pytest_asyncio.fixture
async def house(node: NodeProcess) -> AsyncIterator[House]:
    async with tenant_of(node, access_control=AccessControl.PERMISSION) as tenant:
        member, guest = await tenant.user(), await tenant.user()
        home = await tenant.home(member)
        made = House(tenant, member, guest, home, await tenant.device(home))
        await tenant.store.entities.create(Entity(made.entity, tenant.project, home, "room"), 10)
        yield made


RECEIVED: Final = {"homeId": ["home", "device", "entity"], "deviceId": ["device"], "entityId": ["entity"]}


@pytest.mark.parametrize("name", READ)
async def test_a_right_opens_its_filter_and_no_other(house: House, name: str) -> None:
    await house.grant(house.guest, name)
    assert await house.receives(house.guest, house.path(name)) == RECEIVED[name]
    for other in READ.keys() - {name}:
        await house.refused(house.guest, house.path(other))
        await house.refused(house.member, house.path(other))
    # A member without the right is as anybody else.
    await house.refused(house.member, house.path(name))


async def test_without_a_filter_nobody_listens(house: House) -> None:
    await house.grant(house.guest, *READ)
    await house.refused(house.guest, PATH, 403)
    answer = await refusal(house.tenant.url, f"{PATH}?authToken={house.guest.key}", None)
    assert answer.status == 403


async def test_the_filter_that_precedence_chooses_is_the_one_that_needs_a_right(house: House) -> None:
    await house.grant(house.guest, "deviceId")
    assert await house.receives(house.guest, house.path("homeId", "deviceId")) == ["device"]
    await house.refused(house.guest, house.path("deviceId", "entityId"))
    await house.grant(house.guest, "entityId")
    assert await house.receives(house.guest, house.path("homeId", "deviceId", "entityId")) == ["entity"]


async def test_every_value_of_a_filter_needs_its_right(house: House) -> None:
    tenant = house.tenant
    await house.grant(house.guest, *READ)
    other = await tenant.home(house.member)
    running_on = (await tenant.device(other)).id
    await tenant.store.entities.create(Entity("attic", tenant.project, other, "room"), 10)
    for name, value in (("homeId", str(other)), ("deviceId", str(running_on)), ("entityId", "attic")):
        await house.refused(house.guest, f"{house.path(name)}&{urlencode({name: value})}")


async def test_what_may_not_be_heard_is_refused_like_what_does_not_exist(house: House) -> None:
    for name, unknown in (("homeId", "999999999"), ("deviceId", "999999999"), ("entityId", "nothing")):
        answers = [
            await house.refused(house.guest, path)
            for path in (house.path(name), f"{PATH}?{urlencode({name: unknown})}")
        ]
        assert len({(each.body, str({**each.headers, "date": ""})) for each in answers}) == 1


async def test_a_device_is_heard_where_it_is_now(house: House) -> None:
    tenant, path = house.tenant, house.path("deviceId")
    await house.grant(house.guest, "deviceId")
    await tenant.store.devices.move(tenant.project, house.device.id, None)
    await house.refused_soon(house.guest, path)
    other = await tenant.home(house.member)
    await tenant.store.devices.move(tenant.project, house.device.id, other)
    async with await listen(tenant.url, path, house.guest.key) as socket:

        async def is_taken() -> bool:
            status, _ = await tenant.put(
                f"/devices/{house.device.id}/event", house.device.key, {"eventType": "here"}
            )
            return status == 204

        # Until its tail has read of the move the node takes nothing of a device in no home.
        await eventually(is_taken)
        assert (await socket.receive_json())["homeId"] == other


async def test_an_entity_is_heard_where_it_is_bound_and_nowhere_else(house: House) -> None:
    tenant, path = house.tenant, house.path("entityId")
    await house.grant(house.guest, "entityId")
    await tenant.store.entities.delete(tenant.project, house.entity)
    await house.refused_soon(house.guest, path)
    other = await tenant.home(house.member)
    await tenant.store.entities.create(Entity(house.entity, tenant.project, other, "room"), 10)
    async with await listen(tenant.url, path, house.guest.key) as socket:
        await tenant.send({"homeId": other, "entityId": house.entity, "eventType": "here"})
        assert (await socket.receive_json())["homeId"] == other


async def test_a_right_to_a_deleted_home_opens_nothing(house: House) -> None:
    await house.grant(house.guest, "homeId")
    await house.tenant.store.homes.delete(house.tenant.project, house.home)
    await house.refused_soon(house.guest, house.path("homeId"))


async def test_groups_give_what_they_have_and_the_last_source_counts(house: House) -> None:
    tenant, groups, path = house.tenant, house.tenant.store.groups, house.path("homeId")
    group = await groups.create(tenant.project, "night watch")
    await groups.grant(tenant.project, group.id, house.right("homeId"))
    await house.refused(house.guest, path)
    await groups.enter(tenant.project, group.id, house.guest.id)
    await house.grant(house.guest, "homeId")
    assert await house.receives(house.guest, path)
    await tenant.store.permissions.revoke(tenant.project, house.guest.id, house.right("homeId"))
    assert await house.receives(house.guest, path)
    await groups.quit(tenant.project, group.id, house.guest.id)
    await house.refused_soon(house.guest, path)


async def test_a_write_right_opens_no_filter(house: House) -> None:
    grant, project = house.tenant.store.permissions.grant, house.tenant.project
    await grant(project, house.guest.id, Permission(PermissionKind.WRITE_HOME, str(house.home)))
    await grant(project, house.guest.id, Permission(PermissionKind.WRITE_DEVICE, str(house.device.id)))
    for name in READ:
        await house.refused(house.guest, house.path(name))


async def test_where_memberships_say_who_hears_rights_say_nothing(tenant: Tenant) -> None:
    member, guest = await tenant.user(), await tenant.user()
    house = House(tenant, member, guest, await tenant.home(member), Account(0, ""))
    await house.grant(guest, "homeId")
    await house.refused(guest, house.path("homeId"))
    async with await listen(tenant.url, PATH, member.key) as socket:
        assert await socket.is_alive()
