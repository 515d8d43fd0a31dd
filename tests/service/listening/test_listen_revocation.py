"""A lost permission ends delivery: an open socket is resubscribed, or closed, on every node.

The changes are made by another process than the node that holds the sockets, as by another node.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio

from kit.client import Socket, listen, listen_if_allowed
from kit.clock import ROUNDS, meetings
from kit.homes import READ, TwoHomes
from kit.node import NodeProcess
from kit.tenant import tenant_of

COME_BACK, NO_ACCESS, DELETED, KEY_ENDED = 4004, 4500, 4501, 4502


class PermittedHomes(TwoHomes):
    """Where `guest` has each permission."""

    def event(self, name: str, number: int, kind: str) -> dict[str, object]:
        """One that the filter `name` lets through, of that home."""
        if name == "deviceId":
            return {"deviceId": self.devices[number].id, "eventType": kind}
        more = {"entityId": self.entities[number]} if name == "entityId" else {}
        return {"homeId": self.homes[number], "eventType": kind, **more}

    async def listening(self, name: str, *numbers: int) -> Socket:
        return await self.listener(self.guest, self.path(name, *numbers), len(numbers))

    async def grant(self, permission: str) -> None:
        await self.tenant.grant(self.guest.id, permission)

    async def revoke(self, permission: str) -> None:
        await self.tenant.revoke(self.guest.id, permission)

    async def closed_by(self, socket: Socket, name: str, code: int, change: Awaitable[object]) -> None:
        """The event that was acknowledged before `change` comes, then the close, and no later event.

        The close must come long before the next sweep of the relay, which is the only other cause of it.
        """
        await self.tenant.send(self.event(name, 0, "before"))
        await change
        await self.tenant.send(self.event(name, 0, "after"))
        assert await socket.receive_type() == "before"
        assert (await socket.receive()).close_code == code


@pytest_asyncio.fixture
async def permitted(node: NodeProcess) -> AsyncIterator[PermittedHomes]:
    async with tenant_of(node, access_control="permission") as tenant:
        made = await PermittedHomes.of(tenant, ("kitchen", 'Flur "2"/\u0001'))
        await made.grant_all(made.guest)
        yield made


@pytest.mark.parametrize("name", READ)
async def test_end_of_last_permission_closes_socket(permitted: PermittedHomes, name: str) -> None:
    permission = permitted.permission(name, 0)

    await permitted.grant(permission)
    async with await permitted.listening(name, 0) as socket:
        await permitted.closed_by(socket, name, NO_ACCESS, permitted.revoke(permission))


@pytest.mark.parametrize("name", READ)
async def test_remaining_permission_keeps_delivering(permitted: PermittedHomes, name: str) -> None:
    async with await permitted.listening(name, 0, 1) as socket:
        await permitted.revoke(permitted.permission(name, 0))
        await permitted.tenant.send(permitted.event(name, 0, "lost"), permitted.event(name, 1, "kept"))
        assert await socket.receive_type() == "kept"
        await permitted.revoke(permitted.permission(name, 1))
        assert (await socket.receive()).close_code == NO_ACCESS


@pytest.mark.parametrize("name", READ)
async def test_end_of_other_permissions_closes_nothing(permitted: PermittedHomes, name: str) -> None:
    tenant = permitted.tenant
    writes = [
        f"write:home:{permitted.homes[0]}",
        f"write:device:{permitted.devices[0].id}",
    ]
    for permission in writes:
        await tenant.grant(permitted.guest.id, permission)
    async with await permitted.listening(name, 0) as socket:
        for permission in (*writes, *(permitted.permission(other, 0) for other in READ if other != name)):
            await permitted.revoke(permission)
        await tenant.send(permitted.event(name, 0, "still"))
        assert await socket.receive_type() == "still"


async def test_another_users_loss_closes_nothing(permitted: PermittedHomes) -> None:
    tenant, other, permission = (
        permitted.tenant,
        await permitted.tenant.user(),
        permitted.permission("homeId", 0),
    )
    await tenant.grant(other.id, permission)
    async with await permitted.listening("homeId", 0) as socket:
        await tenant.revoke(other.id, permission)
        await tenant.send(permitted.event("homeId", 0, "still"))
        assert await socket.receive_type() == "still"


Loss = Callable[[PermittedHomes, int], Awaitable[None]]


async def _quit(permitted: PermittedHomes, group: int) -> None:
    await permitted.tenant.store.groups.quit(permitted.tenant.project, group, permitted.guest.id)


async def _revoke(permitted: PermittedHomes, group: int) -> None:
    await permitted.tenant.revoke_group(group, permitted.permission("homeId", 0))


async def _delete(permitted: PermittedHomes, group: int) -> None:
    await permitted.tenant.store.groups.delete(permitted.tenant.project, group)


@pytest.mark.parametrize("lose", [_quit, _revoke, _delete])
async def test_permissions_of_group_end_with_it(permitted: PermittedHomes, lose: Loss) -> None:
    tenant, groups, permission = (
        permitted.tenant,
        permitted.tenant.store.groups,
        permitted.permission("homeId", 0),
    )

    await permitted.grant(permission)
    group = (await groups.create(tenant.project, "night watch")).id
    await groups.enter(tenant.project, group, permitted.guest.id)
    await tenant.grant_group(group, permission)
    async with await permitted.listening("homeId", 0) as socket:
        await permitted.revoke(permission)
        await tenant.send(permitted.event("homeId", 0, "by the group"))
        assert await socket.receive_type() == "by the group"
        await permitted.closed_by(socket, "homeId", NO_ACCESS, lose(permitted, group))


async def test_memberships_take_nothing_away(permitted: PermittedHomes) -> None:
    tenant, homes = permitted.tenant, permitted.tenant.store.homes
    await homes.add_member(tenant.project, permitted.homes[0], permitted.guest.id)
    async with await permitted.listening("homeId", 0) as socket:
        await homes.remove_member(tenant.project, permitted.homes[0], permitted.guest.id)
        await tenant.send(permitted.event("homeId", 0, "still"))
        assert await socket.receive_type() == "still"


async def test_entity_that_is_bound_anew_sends_its_listeners_back(permitted: PermittedHomes) -> None:
    tenant, entity, homes = permitted.tenant, permitted.entities[0], permitted.homes

    async with await permitted.listening("entityId", 0) as socket:
        await permitted.bind_anew(entity, homes[1])
        assert (await socket.receive()).close_code == COME_BACK
    async with await listen(tenant.url, permitted.path("entityId", 0), permitted.guest.key) as socket:
        await tenant.send({"homeId": homes[1], "entityId": entity, "eventType": "here"})
        assert await socket.receive_type() == "here"


async def test_lost_entity_is_received_in_no_other_home(permitted: PermittedHomes) -> None:
    tenant = permitted.tenant
    async with await permitted.listening("entityId", 0, 1) as socket:
        await permitted.revoke(permitted.permission("entityId", 0))
        await permitted.bind_anew(permitted.entities[0], permitted.homes[1])
        await tenant.send(
            {"homeId": permitted.homes[1], "entityId": permitted.entities[0], "eventType": "lost"},
            permitted.event("entityId", 1, "kept"),
        )
        assert await socket.receive_type() == "kept"


@pytest.mark.parametrize("name", READ)
async def test_deleted_user_receives_nothing(permitted: PermittedHomes, name: str) -> None:
    """Homes that a user receives by permission are not the user's own."""
    async with await permitted.listening(name, 0) as socket:
        change = permitted.tenant.store.users.delete(permitted.tenant.project, permitted.guest.id)
        await permitted.closed_by(socket, name, DELETED, change)


@pytest.mark.parametrize("name", READ)
async def test_ended_session_receives_nothing(permitted: PermittedHomes, name: str) -> None:
    sessions, project = permitted.tenant.store.sessions, permitted.tenant.project
    [session] = await sessions.of_user(project, permitted.guest.id)
    async with await permitted.listening(name, 0) as socket:
        await permitted.closed_by(socket, name, KEY_ENDED, sessions.end(project, session.id))


async def test_revocation_reaches_sockets_that_connect_meanwhile(permitted: PermittedHomes) -> None:
    """A connection that opens meanwhile is refused, or let in and then closed; nobody stays."""
    tenant, permission, came_in, kept_out = permitted.tenant, permitted.permission("homeId", 0), 0, 0

    async def come(after_s: float) -> Socket | None:
        await asyncio.sleep(after_s)
        return await listen_if_allowed(tenant.url, permitted.path("homeId", 0), permitted.guest.key)

    async def revoke(after_s: float) -> None:
        # From before the first step of a handshake to behind its last, a little later each time.
        await asyncio.sleep(after_s)
        await permitted.revoke(permission)

    for number, (coming, revoking) in enumerate(meetings()):
        if number >= ROUNDS and came_in and kept_out:
            break
        *sockets, _ = await asyncio.gather(*(come(coming) for _ in range(4)), revoke(revoking))
        for socket in sockets:
            if socket is None:
                kept_out += 1
                continue
            async with socket:
                assert (await socket.receive()).close_code in (NO_ACCESS, COME_BACK)
                came_in += 1
        await permitted.grant(permission)
    assert came_in, "always too late"
    assert kept_out, "always too early"
