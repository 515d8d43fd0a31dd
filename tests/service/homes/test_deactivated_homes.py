"""A deactivated home: every node delivers none of its events and accepts none for it.

The changes are made by another process than the node that holds the sockets, as by another node.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any, Final

import orjson
import pytest
import pytest_asyncio

from kit.client import TEXT, TIMEOUT_S, Socket, listen, listen_if_allowed, refusal
from kit.clock import ROUNDS, meetings
from kit.homes import PATH, READ, TwoHomes
from kit.in_redis import envelope, event_of, stream_of
from kit.node import NodeProcess, eventually
from kit.tenant import ACCESS_CONTROLS, Tenant, tenant_of

COME_BACK, NO_ACCESS = 4004, 4500
NAMED: Final = [
    (access, name)
    for access in ACCESS_CONTROLS
    for name in READ
    # A member receives an entity in every home: such a socket follows homes.
    if (access, name) != ("membership", "entityId")
]
"""Filters that name something of a home, by the access control of the project."""


class SwitchedHomes(TwoHomes):
    """The first home is deactivated and activated."""

    async def happen_behind(self, kind: str) -> None:
        """An event of the first home, as a node stores it that has not read of the deactivation yet."""
        home, event = self.homes[0], {"eventType": kind, "entityId": self.entities[0]}
        stored = envelope(event, self.tenant.project, home, key_id=self.tenant.key_id, key_name="server")
        await self.tenant.redis.xadd(stream_of(home), {"e": stored})

    async def switch(self, on: bool, home: int = 0) -> None:
        await self.tenant.store.homes.set_deactivated(self.tenant.project, self.homes[home], not on)

    async def receives_after_connecting(self, path: str, kind: str) -> str:
        """The type of what the member receives who comes now, when there is an event of the first home. Who
        comes to a node that has yet to read of a change from before is sent away, and comes again."""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                async with await listen(self.tenant.url, path, self.member.key) as socket:
                    await self.happen(kind, 0)
                    received = await socket.receive()
                    if received.opcode == TEXT:
                        return str(orjson.loads(received.payload)["eventType"])
                    assert received.close_code == COME_BACK

    async def refuses(self, method: str, path: str, key: str, body: Any = None) -> None:
        """The node says that the first home is deactivated, as soon as it has read so."""

        async def is_refused() -> bool:
            answer = await self.tenant.ask(method, path, key, body)
            if answer.status != 403:
                return False
            problem = f"home {self.homes[0]} is deactivated"
            assert (answer.reason, answer.body["data"]["problem"]) == ("HOME_DEACTIVATED", problem)
            return True

        await eventually(is_refused)


@pytest_asyncio.fixture
async def switched(tenant: Tenant) -> SwitchedHomes:
    return await SwitchedHomes.of(tenant)


@pytest_asyncio.fixture
async def any_house(node: NodeProcess, request: pytest.FixtureRequest) -> AsyncIterator[SwitchedHomes]:
    """In a project where memberships, or permissions, say what each connection receives."""
    async with tenant_of(node, access_control=request.param) as tenant:
        made = await SwitchedHomes.of(tenant)
        await made.grant_all(made.member)
        yield made


@pytest.mark.parametrize(("any_house", "name"), NAMED, indirect=["any_house"])
async def test_socket_of_nothing_else_is_closed(any_house: SwitchedHomes, name: str) -> None:
    switched, tenant = any_house, any_house.tenant
    async with await switched.listener(switched.member, switched.path(name, 0), homes=1) as socket:
        await switched.happen("before", 0)
        await switched.switch(False)
        # An event that this node still accepts is not delivered.
        await tenant.ask("PUT", f"/homes/{switched.homes[0]}/event", tenant.key, {"eventType": "after"})
        assert await socket.receive_type() == "before"
        assert (await socket.receive()).close_code == NO_ACCESS


@pytest.mark.parametrize(("any_house", "name"), NAMED, indirect=["any_house"])
async def test_socket_of_two_homes_keeps_the_active_one(any_house: SwitchedHomes, name: str) -> None:
    switched = any_house
    async with await switched.listener(switched.member, switched.path(name, 0, 1), homes=2) as socket:
        await switched.switch(False)
        await switched.happen("kept", 1)
        assert await socket.receive_type() == "kept"
        await switched.switch(True)
        # Who named a home is authorised for it once.
        await switched.happen("again")
        assert (await socket.receive_json())["homeId"] == switched.homes[1]
        await switched.switch(False, 1)
        assert (await socket.receive()).close_code == NO_ACCESS


@pytest.mark.parametrize("filtered", [False, True])
async def test_following_socket_receives_activated_home_without_reconnect(
    switched: SwitchedHomes, filtered: bool
) -> None:
    """Also a socket that connected meanwhile, and did not receive it then."""
    path = switched.path("entityId", 0, 1) if filtered else PATH
    async with await switched.listener(switched.member, path, homes=2) as there:
        await switched.switch(False)
        async with await listen(switched.tenant.url, path, switched.member.key) as later:
            for round_ in range(3):
                await switched.happen_behind("taken by a node that is behind")
                await switched.happen("meanwhile", 1)
                await switched.switch(True)
                await switched.happen("back", 0)
                await switched.switch(False)
                for socket in (there, later):
                    types = [await socket.receive_json() for _ in range(2)]
                    # Of two homes: what a node reads at once it tells in the order of their shards.
                    told = {each["eventType"]: each["homeId"] for each in types}
                    assert told == {"meanwhile": switched.homes[1], "back": switched.homes[0]}, round_


async def test_member_added_to_deactivated_home_receives_from_activation_on(
    switched: SwitchedHomes,
) -> None:
    tenant, guest = switched.tenant, switched.guest
    async with await listen(tenant.url, PATH, guest.key) as socket:
        await switched.switch(False)
        await tenant.store.homes.add_member(tenant.project, switched.homes[0], guest.id)
        await switched.switch(True)
        await switched.happen("heard", 0)
        assert await socket.receive_type() == "heard"
        await switched.switch(False)
        await tenant.store.homes.remove_member(tenant.project, switched.homes[0], guest.id)
        await switched.switch(True)
        await switched.happen("not heard", 0)
        await tenant.store.homes.add_member(tenant.project, switched.homes[1], guest.id)
        await switched.happen("elsewhere", 1)
        assert await socket.receive_type() == "elsewhere"


@pytest.mark.parametrize(("any_house", "name"), NAMED, indirect=["any_house"])
async def test_new_socket_that_names_it_is_refused_like_one_that_names_nothing(
    any_house: SwitchedHomes, name: str
) -> None:
    switched, tenant = any_house, any_house.tenant
    await switched.switch(False)
    for numbers in ((0,), (1, 0)):
        answer = await refusal(tenant.url, switched.path(name, *numbers), switched.member.key)
        nothing = await refusal(tenant.url, f"{PATH}?{name}=987654321", switched.member.key)
        assert (answer.status, answer.body) == (nothing.status, nothing.body)
    await switched.switch(True)
    assert await switched.receives_after_connecting(switched.path(name, 0), "here") == "here"


async def test_nothing_is_taken_for_it_and_all_of_it_can_be_read(switched: SwitchedHomes) -> None:
    tenant, home, device = switched.tenant, switched.homes[0], switched.devices[0]
    for path in (f"/homes/{home}/kv/mood", f"/devices/{device.id}/kv/mood"):
        assert (await tenant.ask("PUT", path, switched.member.key, {"value": 1})).status == 204
    await switched.switch(False)
    event = {"eventType": "on"}
    await switched.refuses("PUT", f"/homes/{home}/event", tenant.key, event)
    await switched.refuses("PUT", f"/devices/{device.id}/event", device.key, event)
    for key in (switched.member.key, tenant.key):
        for path in (f"/devices/{device.id}/command", f"/devices/{device.id}/command?queue=60"):
            await switched.refuses("PUT", path, key, {"action": "on"})
    for path in (f"/homes/{home}/kv/mood", f"/devices/{device.id}/kv/mood"):
        await switched.refuses("PUT", path, switched.member.key, {"value": 2})
        await switched.refuses("DELETE", path, switched.member.key)
        assert (await tenant.ask("GET", path, switched.member.key)).body["value"] == 1
    assert (await tenant.ask("GET", f"/homes/{home}", switched.member.key)).body["deactivated"] is True
    assert (await tenant.ask("GET", f"/devices/{device.id}", switched.member.key)).body["homeId"] == home
    # Who may not see the home learns nothing of it.
    for key, path in ((switched.guest.key, f"/devices/{device.id}/command"), (tenant.key, "/homes/9/event")):
        assert (await tenant.ask("PUT", path, key, {"action": "on", **event})).status == 404
    await switched.switch(True)
    assert (await tenant.ask("PUT", f"/devices/{device.id}/event", device.key, event)).status == 204
    assert (
        await tenant.ask("PUT", f"/devices/{device.id}/command", tenant.key, {"action": "on"})
    ).status == 204


async def test_of_many_events_those_of_it_are_refused_one_by_one(switched: SwitchedHomes) -> None:
    tenant = switched.tenant
    await switched.switch(False)
    await switched.refuses("PUT", f"/homes/{switched.homes[0]}/event", tenant.key, {"eventType": "on"})
    events = [
        {"homeId": switched.homes[0], "eventType": "on"},
        {"homeId": switched.homes[1], "eventType": "on"},
        {"deviceId": switched.devices[0].id, "eventType": "on"},
        {"deviceId": switched.devices[1].id, "eventType": "on"},
        {"homeId": 987654321, "eventType": "on"},
    ]
    results = (await tenant.ask("POST", "/events", tenant.key, events)).body["results"]
    deactivated = {"field": "homeId", "problem": f"home {switched.homes[0]} is deactivated"}
    reasons = [(each["status"], each.get("reason")) for each in results]
    refused = (403, "HOME_DEACTIVATED")
    assert reasons == [refused, (204, None), refused, (204, None), (404, "NOT_FOUND")]
    assert results[0]["data"] == results[2]["data"] == deactivated


async def test_deactivated_home_sends_no_presence_events(switched: SwitchedHomes) -> None:
    """Its command socket may be open, and receives what is sent to it once its home is active again."""
    tenant, device = switched.tenant, switched.devices[0]
    path = f"/devices/{device.id}/command"

    async def is_connected(wanted: bool) -> bool:
        presence = await tenant.store.presence.of(tenant.project, [device.id])
        return presence[device.id].connected is wanted

    await switched.switch(False)
    async with await listen(tenant.url, path, device.key):
        await eventually(lambda: is_connected(True))
    await eventually(lambda: is_connected(False))
    async with await listen(tenant.url, path, device.key) as socket:
        await eventually(lambda: is_connected(True))
        await switched.switch(True)
        assert (await tenant.ask("PUT", path, tenant.key, {"action": "on"})).status == 204
        assert (await socket.receive_json())["action"] == "on"
    await eventually(lambda: is_connected(False))
    # Whether it is connected is written before the event of that is in the shard.
    await tenant.announced()
    assert await _events_in_the_shard(tenant, switched.homes[0]) == ["_deviceDisconnected_"]


async def test_deactivation_reaches_sockets_that_connect_meanwhile(switched: SwitchedHomes) -> None:
    """A connection that opens meanwhile is refused or closed; one that follows homes receives it again."""
    tenant, came_in, kept_out = switched.tenant, 0, 0

    async def come(path: str, after_s: float) -> Socket | None:
        await asyncio.sleep(after_s)
        return await listen_if_allowed(tenant.url, path, switched.member.key)

    async def deactivate(after_s: float) -> None:
        # From before the first step of a handshake to behind its last, a little later each time.
        await asyncio.sleep(after_s)
        await switched.switch(False)

    for number, (coming, deactivating) in enumerate(meetings()):
        if number >= ROUNDS and came_in and kept_out:
            break
        *sockets, follower, _ = await asyncio.gather(
            come(switched.path("homeId", 0), coming),
            come(switched.path("deviceId", 0), coming),
            come(PATH, coming),
            deactivate(deactivating),
        )
        assert follower is not None
        for socket in sockets:
            if socket is None:
                kept_out += 1
                continue
            async with socket:
                assert (await socket.receive()).close_code in (NO_ACCESS, COME_BACK)
                came_in += 1
        async with follower:
            await switched.switch(True)
            await switched.happen("again", 0)
            assert await follower.receive_type() == "again"
    assert came_in, "always too late"
    assert kept_out, "always too early"


async def test_memberships_and_activations_at_once_deliver_by_state_of_event(
    switched: SwitchedHomes,
) -> None:
    """Each event says what was so when it was sent."""
    tenant, home, guest = switched.tenant, switched.homes[0], switched.guest
    homes, is_member, is_on = tenant.store.homes, False, True
    async with await listen(tenant.url, PATH, guest.key) as socket:
        await homes.add_member(tenant.project, switched.homes[1], guest.id)
        for number, (switches, joins) in enumerate(pairwise([0, 1, 1, 0, 0, 1, 0, 1, 1, 1, 0, 0])):
            if switches:
                is_on = not is_on
                await switched.switch(is_on)
            if joins:
                is_member = not is_member
                change = homes.add_member if is_member else homes.remove_member
                await change(tenant.project, home, guest.id)
            if is_on:
                await switched.happen(f"{number} {is_member}", 0)
            await switched.happen(f"{number} end", 1)
            expected = {f"{number} end"} | ({f"{number} True"} if is_on and is_member else set())
            # In the order of the homes' shards, if the node read them at once.
            assert {await socket.receive_type() for _ in expected} == expected


async def _events_in_the_shard(tenant: Tenant, home: int) -> list[str]:
    """The types of all events of a home that were ever sent, whether received or not."""
    entries: Any = await tenant.redis.xrange(stream_of(home))
    events = (event_of(fields[b"e"]) for _, fields in entries)
    return [event["eventType"] for event in events if event.get("homeId") == home]
