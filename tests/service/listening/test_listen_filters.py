"""What a listener receives: precedence of the filters, whole homes, entities, and the limits of each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import pytest
import pytest_asyncio

from kit.client import Refused, Socket, listen, refusal
from kit.node import CLUSTER, NodeProcess
from kit.tenant import Account, Tenant, tenant_of

PATH = "/userSession/websocket"
MIXTURES = ["", "h", "d", "e", "hd", "he", "de", "hde"]
STRANGE = {
    "invisible": None,
    "malformed": ["x", "", "-1", "1.5", "99999999999999999999", "1,,2"],
    "unknown": ["999999999"],
}


@dataclass
class ThreeHomes:
    """Three homes of one user with two devices each, and one home of somebody else.

    Filters name the first two homes, a device of the first and one of the second, and the entities
    `one` and `two`.
    """

    tenant: Tenant
    user: Account
    homes: list[int]
    devices: list[Account]
    foreign_home: int
    foreign_device: Account

    @property
    def named_devices(self) -> list[int]:
        return [self.devices[0].id, self.devices[2].id]

    def events(self) -> list[dict[str, Any]]:
        """Events of every home, device and entity; each type says where it comes from."""
        homes = [*self.homes, self.foreign_home]
        entities = [None, "one", "two", "three"]
        addresses = [{"homeId": home} for home in homes]
        addresses += [{"deviceId": device.id} for device in [*self.devices, self.foreign_device]]
        events = [
            {**address, **({"entityId": entity} if entity else {})}
            for address in addresses
            for entity in entities
        ]
        return [{**event, "eventType": f"number {number}"} for number, event in enumerate(events)]

    def home_of(self, event: dict[str, Any]) -> int:
        places = {device.id: device.home for device in [*self.devices, self.foreign_device]}
        home = event.get("homeId") or places[event["deviceId"]]
        assert home is not None
        return int(home)

    def receives(self, mixture: str, event: dict[str, Any]) -> bool:
        """The rule of spec 000, said once more and differently."""
        if "e" in mixture:
            return event.get("entityId") in ("one", "two") and self.home_of(event) in self.homes
        if "d" in mixture:
            return event.get("deviceId") in self.named_devices
        if "h" in mixture:
            return self.home_of(event) in self.homes[:2]
        return self.home_of(event) in self.homes

    def sentinel(self, mixture: str, name: str) -> dict[str, Any]:
        """An event that every filter of this mixture lets through."""
        if "e" in mixture:
            return {"homeId": self.homes[0], "entityId": "one", "eventType": name}
        if "d" in mixture:
            return {"deviceId": self.devices[0].id, "eventType": name}
        return {"homeId": self.homes[0], "eventType": name}

    async def received(self, socket: Socket, mixture: str, count: int) -> list[str]:
        """The types of everything that arrives of `events()`, of which `count` should.

        The first sentinel may overtake events of other shards within one read of the tail, but what
        was acknowledged before it was sent was read by then, and so comes before the second. On a
        cluster shards are read apart, and there is nothing to be said but that `count` must come.
        """
        types: list[str] = []
        await self.tenant.send(*self.events())
        for name in ("first", "second"):
            await self.tenant.send(self.sentinel(mixture, name))
            while name not in types:
                types.append(await socket.receive_type())
        while CLUSTER and len(types) < count + 2:
            types.append(await socket.receive_type())
        return [kind for kind in types if kind not in ("first", "second")]

    async def check(self, query: list[tuple[str, str]], mixture: str) -> None:
        path = f"{PATH}?{urlencode(query)}"
        async with await listen(self.tenant.url, path, self.user.key) as socket:
            expected = [event["eventType"] for event in self.events() if self.receives(mixture, event)]
            received = await self.received(socket, mixture, len(expected))
        assert sorted(received) == sorted(expected)
        assert 0 < len(expected) < len(self.events())

    def query(self, mixture: str, *, comma: bool) -> list[tuple[str, str]]:
        values = {
            "h": ("homeId", [str(home) for home in self.homes[:2]]),
            "d": ("deviceId", [str(device) for device in self.named_devices]),
            "e": ("entityId", ["one", "two"]),
        }
        query = []
        for initial in mixture:
            name, given = values[initial]
            query += [(name, ",".join(given))] if comma and initial != "e" else [(name, it) for it in given]
        return query


@pytest_asyncio.fixture
async def three_homes(tenant: Tenant) -> AsyncIterator[ThreeHomes]:
    user, other = await tenant.user(), await tenant.user()
    homes = [await tenant.home(user) for _ in range(3)]
    devices = [await tenant.device(home) for home in homes for _ in range(2)]
    foreign_home = await tenant.home(other)
    yield ThreeHomes(tenant, user, homes, devices, foreign_home, await tenant.device(foreign_home))


@pytest.mark.parametrize("comma", [False, True], ids=["repeated", "comma"])
@pytest.mark.parametrize("mixture", MIXTURES)
async def test_precedence(three_homes: ThreeHomes, mixture: str, comma: bool) -> None:
    query = three_homes.query(mixture, comma=comma)
    await three_homes.check(query, mixture)
    await three_homes.check(list(reversed(query)), mixture)


@pytest.mark.parametrize("strange", STRANGE)
@pytest.mark.parametrize("mixture", ["hd", "he", "de", "hde"])
async def test_filter_that_is_set_aside_refuses_nothing(
    three_homes: ThreeHomes, mixture: str, strange: str
) -> None:
    """It is not parsed, not looked up, and does not change what is received."""
    strangers = {"homeId": str(three_homes.foreign_home), "deviceId": str(three_homes.foreign_device.id)}
    aside = [{"h": "homeId", "d": "deviceId"}[initial] for initial in mixture[:-1]]
    query = three_homes.query(mixture[-1], comma=False)
    for name in aside:
        query += [(name, value) for value in STRANGE[strange] or [strangers[name]]]
    await three_homes.check(query, mixture)


@pytest.mark.parametrize("value", ["x", "", "-1", "+1", "1.5", "99999999999999999999", "0", "1,,2", " 1"])
@pytest.mark.parametrize("name", ["homeId", "deviceId"])
async def test_filter_in_effect_must_be_well_formed(three_homes: ThreeHomes, name: str, value: str) -> None:
    answer = await refusal(three_homes.tenant.url, f"{PATH}?{urlencode({name: value})}", three_homes.user.key)
    assert (answer.status, answer.json()["data"]["field"]) == (403, name)


async def test_empty_entity_is_refused(three_homes: ThreeHomes) -> None:
    answer = await refusal(three_homes.tenant.url, f"{PATH}?entityId=", three_homes.user.key)
    assert (answer.status, answer.json()["data"]["field"]) == (403, "entityId")


async def test_invisible_filter_value_is_refused_as_unknown(three_homes: ThreeHomes) -> None:
    mine = {"homeId": three_homes.homes[0], "deviceId": three_homes.devices[0].id}
    strangers = {"homeId": three_homes.foreign_home, "deviceId": three_homes.foreign_device.id}
    adrift = (await three_homes.tenant.device(None)).id
    for name, stranger in strangers.items():
        answers = []
        for invisible in (stranger, 999_999_999, 888_888_888, adrift):
            for query in ([(name, mine[name]), (name, invisible)], [(name, invisible)]):
                path = f"{PATH}?{urlencode(query)}"
                answers.append(await refusal(three_homes.tenant.url, path, three_homes.user.key))
        assert {answer.status for answer in answers} == {404}
        # The Date is the clock's, the rest is one answer byte for byte.
        same = {(answer.body, str({**answer.headers, "date": ""})) for answer in answers}
        assert len(same) == 1, same


async def test_entity_is_not_a_comma_list(three_homes: ThreeHomes) -> None:
    path = f"{PATH}?{urlencode({'entityId': 'one,two'})}"
    async with await listen(three_homes.tenant.url, path, three_homes.user.key) as socket:
        home = three_homes.homes[0]
        await three_homes.tenant.send(
            {"homeId": home, "entityId": "one", "eventType": "no"},
            {"homeId": home, "entityId": "one,two", "eventType": "yes"},
        )
        assert await socket.receive_type() == "yes"


async def test_entities_are_text_of_any_kind(three_homes: ThreeHomes) -> None:
    for name in ("Küche/Licht &=?#", "日本", "a b+c", "x" * 256):
        path = f"{PATH}?{urlencode({'entityId': name})}"
        async with await listen(three_homes.tenant.url, path, three_homes.user.key) as socket:
            await three_homes.tenant.send(
                {"deviceId": three_homes.devices[3].id, "entityId": name, "eventType": "t"}
            )
            event = await socket.receive_json()
        assert (event["entityId"], event["homeId"]) == (name, three_homes.homes[1])


async def test_user_without_homes_connects_and_receives_nothing(three_homes: ThreeHomes) -> None:
    lonely = await three_homes.tenant.user()
    async with await listen(three_homes.tenant.url, PATH, lonely.key) as socket:
        await three_homes.tenant.send(*three_homes.events())
        assert await socket.is_alive()


async def test_thousand_filter_values_and_no_more(three_homes: ThreeHomes) -> None:
    tenant, rich = three_homes.tenant, await three_homes.tenant.user()
    homes = await tenant.homes(rich, 1000)
    for path in (
        PATH,
        f"{PATH}?{urlencode([('homeId', home) for home in homes])}",
        f"{PATH}?{urlencode({'homeId': ','.join(map(str, homes))})}",
    ):
        async with await listen(tenant.url, path, rich.key) as socket:
            await tenant.send({"homeId": homes[-1], "eventType": "last"})
            assert await socket.receive_type() == "last"
    await tenant.home(rich)
    for query in (
        urlencode({"homeId": ",".join(map(str, [*homes, homes[0]]))}),
        urlencode([("deviceId", number) for number in range(1, 1002)]),
        urlencode([("entityId", number) for number in range(1001)]),
    ):
        answer = await refusal(tenant.url, f"{PATH}?{query}", rich.key)
        assert answer.status == 403
        assert answer.json()["data"]["field"] == query.split("=")[0]


async def test_more_than_a_thousand_followed_homes_must_be_named(three_homes: ThreeHomes) -> None:
    rich = await three_homes.tenant.user()
    await three_homes.tenant.homes(rich, 1001)
    answer = await refusal(three_homes.tenant.url, PATH, rich.key)
    assert (answer.status, answer.json()["data"]["field"]) == (403, "homeId")


async def test_homes_times_entities_are_at_most_a_thousand(three_homes: ThreeHomes) -> None:
    def path(count: int) -> str:
        return f"{PATH}?{urlencode([('entityId', f'e{number}') for number in range(count)])}"

    url, key = three_homes.tenant.url, three_homes.user.key
    async with await listen(url, path(333), key) as socket:
        await three_homes.tenant.send(
            {"homeId": three_homes.homes[2], "entityId": "e332", "eventType": "last"}
        )
        assert await socket.receive_type() == "last"
    with pytest.raises(Refused) as refused:
        await listen(url, path(334), key)
    assert refused.value.answer.status == 403
    assert refused.value.answer.json()["data"]["field"] == "entityId"


async def test_events_stay_within_their_project(three_homes: ThreeHomes, node: NodeProcess) -> None:
    """Ids are unique in the deployment, entity ids are not; and no key reaches over."""
    url, key = three_homes.tenant.url, three_homes.user.key
    async with tenant_of(node) as other:
        stranger = await other.user()
        home = await other.home(stranger)
        device = await other.device(home)
        for path in (f"{PATH}?homeId={three_homes.homes[0]}", f"{PATH}?deviceId={three_homes.devices[0].id}"):
            assert (await refusal(url, path, stranger.key)).status == 404
        assert (await other.put(f"/homes/{three_homes.homes[0]}/event", other.key, {"eventType": "x"}))[
            0
        ] == 404
        path = f"/devices/{three_homes.devices[0].id}/command"
        assert (await other.put(path, other.key, {"action": "x"}))[0] == 404
        async with (
            await listen(url, f"{PATH}?entityId=one", key) as ours,
            await listen(url, f"{PATH}?entityId=one", stranger.key) as theirs,
        ):
            for _ in range(2):  # Two rounds: one read of the tail may turn two shards round.
                await other.send({"deviceId": device.id, "entityId": "one", "eventType": "theirs"})
                await three_homes.tenant.send(
                    {"homeId": three_homes.homes[0], "entityId": "one", "eventType": "ours"}
                )
                for socket, name in ((ours, "ours"), (theirs, "theirs")):
                    assert await socket.receive_type() == name
                    assert await socket.is_alive()
