"""Revocation: what a listener receives, and how it is closed, when a permission or a binding ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from typing import Final

import pytest
import pytest_asyncio

from kit.client import CLOSE, Socket, listen
from kit.homes import PATH, READ, TwoHomes
from kit.node import NodeProcess
from kit.tenant import Tenant, tenant_of

RESUBSCRIBE: Final = 4004
ACCESS_ENDED: Final = 4500


class PermittedHomes(TwoHomes):
    """What `guest` receives by permission."""

    async def grant(self, name: str, *numbers: int) -> None:
        for number in numbers:
            await self.tenant.grant(self.guest.id, self.permission(name, number))

    async def revoke(self, name: str, number: int) -> None:
        await self.tenant.revoke(self.guest.id, self.permission(name, number))

    async def listening(self, name: str, *numbers: int) -> Socket:
        return await self.listener(self.guest, self.path(name, *numbers), len(numbers))


@pytest_asyncio.fixture
async def permitted(node: NodeProcess) -> AsyncIterator[PermittedHomes]:
    async with tenant_of(node, access_control="permission") as tenant:
        yield await PermittedHomes.of(tenant, ("lamp", "door"))


async def closed(socket: Socket, change: Awaitable[None]) -> tuple[list[str], int]:
    """What is received from now on until the close frame, and its code. How soon after the change it comes is
    measured in `test_listen_revocation.py`."""
    await change
    received = list[str]()
    while (frame := await socket.receive()).opcode != CLOSE:
        received.append(frame.payload.decode())
    return received, frame.close_code


@pytest.mark.parametrize("name", READ)
async def test_end_of_only_permission_closes_connection(permitted: PermittedHomes, name: str) -> None:
    await permitted.grant(name, 0)
    async with await permitted.listening(name, 0) as socket:
        await permitted.happen("acknowledged before")
        received, code = await closed(socket, permitted.revoke(name, 0))
    assert ([each.count("acknowledged before") for each in received], code) == ([1], ACCESS_ENDED)


@pytest.mark.parametrize("name", READ)
async def test_end_of_one_permission_of_two_keeps_the_other(permitted: PermittedHomes, name: str) -> None:
    await permitted.grant(name, 0, 1)
    async with await permitted.listening(name, 0, 1) as socket:
        await permitted.revoke(name, 0)
        await permitted.happen("after")
        event = await socket.receive_json()
        assert (event["eventType"], event["homeId"]) == ("after", permitted.homes[1])
        assert await closed(socket, permitted.revoke(name, 1)) == ([], ACCESS_ENDED)


async def test_permission_by_group_outlives_own_permission(permitted: PermittedHomes) -> None:
    store, project = permitted.tenant.store, permitted.tenant.project
    group = await store.groups.create(project, "night watch")
    await permitted.tenant.grant_group(group.id, permitted.permission("homeId", 0))
    await store.groups.enter(project, group.id, permitted.guest.id)
    await permitted.grant("homeId", 0)
    async with await permitted.listening("homeId", 0) as socket:
        await permitted.revoke("homeId", 0)
        await permitted.happen("by the group")
        assert await socket.receive_type() == "by the group"
        quitting = store.groups.quit(project, group.id, permitted.guest.id)
        assert await closed(socket, quitting) == ([], ACCESS_ENDED)


async def test_rebinding_entity_closes_permitted_listener_with_4004(permitted: PermittedHomes) -> None:
    await permitted.grant("entityId", 0, 1)
    async with await permitted.listening("entityId", 1) as other:
        async with await permitted.listening("entityId", 0, 1) as socket:
            assert await closed(socket, permitted.bind_anew("lamp", permitted.homes[1])) == ([], RESUBSCRIBE)
        assert await other.receive_type() == "first"
        assert await other.is_alive()
    async with await listen(
        permitted.tenant.url, permitted.path("entityId", 0, 1), permitted.guest.key
    ) as socket:
        await permitted.tenant.send({"homeId": permitted.homes[1], "entityId": "lamp", "eventType": "here"})
        assert (await socket.receive_json())["homeId"] == permitted.homes[1]


async def test_entity_is_received_in_its_own_home_only(
    permitted: PermittedHomes,
) -> None:
    """Else a permission would outlive its end, in the home of an entity that was named beside it."""
    await permitted.grant("entityId", 0, 1)
    async with await permitted.listening("entityId", 0, 1) as socket:
        await permitted.revoke("entityId", 0)
        await permitted.bind_anew("lamp", permitted.homes[1])
        for entity, name in (("lamp", "secret"), ("door", "heard")):
            await permitted.tenant.send({"homeId": permitted.homes[1], "entityId": entity, "eventType": name})
        assert await socket.receive_type() == "heard"


async def test_rebinding_entity_closes_member_listener_with_4004(tenant: Tenant) -> None:
    permitted = await PermittedHomes.of(tenant, ("lamp", "door"))
    member, homes = permitted.member, permitted.homes
    path = f"{PATH}?entityId=lamp"
    async with await listen(tenant.url, path, member.key) as socket:
        assert await closed(socket, permitted.bind_anew("lamp", homes[1])) == ([], RESUBSCRIBE)
    async with await listen(tenant.url, path, member.key) as socket:
        await tenant.send({"homeId": homes[1], "entityId": "lamp", "eventType": "here"})
        assert await socket.receive_type() == "here"
