"""Deliveries need neither the event loop nor the GIL; Redis may restart, die or hang meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator

import pytest
from redis.exceptions import RedisError

from kit.client import Refused, listen, raw_request
from kit.clock import suspended
from kit.node import NodeProcess, eventually, private_node, running_node
from kit.tenant import Account, Tenant, tenant_of

EVENTS = "/userSession/websocket"


async def redis_pid(tenant: Tenant) -> int:
    return int((await tenant.redis.info("server"))["process_id"])


@pytest.mark.parametrize("event_loop", ["uvloop", "asyncio"])
async def test_deliveries_go_on_while_the_loop_and_the_gil_are_held(event_loop: str) -> None:
    with (
        private_node(steps=True, event_loop=event_loop) as held,
        running_node(held.data_dir, redis_url=held.redis_url) as free,
    ):
        async with tenant_of(free) as tenant:
            user = await tenant.user()
            home = await tenant.home(user)
            device = await tenant.device(home)
            path = f"/devices/{device.id}/command"
            async with (
                await listen(held.url, EVENTS, user.key) as socket,
                await listen(held.url, path, device.key) as commands,
            ):
                held.say("hold")
                await held.prints("held")
                answer = asyncio.create_task(
                    raw_request(held.url, b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
                )
                for number in range(12):
                    await tenant.send({"homeId": home, "eventType": str(number)})
                    assert await socket.receive_type() == str(number)
                    assert await socket.is_alive()
                assert (await tenant.put(path, user.key, {"action": "go"}))[0] == 204
                assert await commands.receive_text() == '{"action":"go"}'
                assert not answer.done(), "the event loop was not held at all"
                held.say("x")
                await held.prints("released")
                assert (await answer).status == 200


async def test_listen_shows_each_event_in_a_line_whatever_its_sender_wrote(
    node: NodeProcess, tenant: Tenant
) -> None:
    user = await tenant.user()
    home = await tenant.home(user)
    # Those of other tests may still be on their way out.
    await node.settles()
    command = (sys.executable, "-m", "homewire.cli", "listen", "--url", node.url, "--key", user.key)
    for_people = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    for_machines = await asyncio.create_subprocess_exec(*command, "--json", stdout=asyncio.subprocess.PIPE)
    assert for_people.stdout is not None
    assert for_machines.stdout is not None
    try:
        await node.until("connections", 2, within=30)
        data = (
            b'{\n"n":123456789012345678901,\r\n"half":"\\ud83d","two  spaces":"\\u00e9"}',
            b'{"clear":"\\u001b[2J\xc2\x9b\\n"}',
            b'{"digits":%s}' % (b"1" * 5_000),
        )
        for each in data:
            body = b'{"eventType":"t\\u001b\\n","eventData":%b}' % each
            path, headers = f"/homes/{home}/event", {"Authorization": tenant.key}
            async with tenant.http.put(path, data=body, headers=headers) as answer:
                assert answer.status == 204
            all_received = await asyncio.wait_for(for_machines.stdout.readline(), 10)
            assert each.replace(b"\n", b"").replace(b"\r", b"") in all_received
            shown = (await asyncio.wait_for(for_people.stdout.readline(), 10)).decode()
            assert shown.removesuffix("\n").isprintable()
            if each is data[0]:
                expected = r'{"n":123456789012345678901,"half":"\ud83d","two  spaces":"é"}'
                assert shown.endswith(f"home {home}  t\\x1b\\n  {expected}\n")
    finally:
        for process in (for_people, for_machines):
            process.kill()
            await process.wait()


async def test_event_accepted_by_one_node_is_delivered_by_all(node: NodeProcess, tenant: Tenant) -> None:
    user = await tenant.user()
    home = await tenant.home(user)
    with running_node(node.data_dir, redis_url=node.redis_url) as second:
        async with (
            await listen(node.url, EVENTS, user.key) as here,
            await listen(second.url, EVENTS, user.key) as there,
        ):
            await tenant.send(*({"homeId": home, "eventType": str(number)} for number in range(200)))
            for socket in (here, there):
                assert [await socket.receive_type() for _ in range(200)] == [str(n) for n in range(200)]


@pytest.fixture
def durable() -> Iterator[NodeProcess]:
    """A node of the test's own, whose Redis loses nothing acknowledged."""
    with private_node(durability="always") as node:
        yield node


class Load:
    """Senders that number their events, and a listener that checks what comes."""

    def __init__(self, tenant: Tenant, homes: list[int]) -> None:
        self.tenant = tenant
        self.homes = homes
        self.acknowledged: set[str] = set()
        self.sent: set[str] = set()
        self.received: list[str] = []
        self.refused = 0
        self.stopping = False

    async def send(self, sender: int) -> None:
        """One event after another, until it is told to stop."""
        number = 0
        while not self.stopping:
            name = f"{sender} {number}"
            number += 1
            self.sent.add(name)
            path = f"/homes/{self.homes[sender % len(self.homes)]}/event"
            status, answer = await self.tenant.put(path, self.tenant.key, {"eventType": name})
            if status == 204:
                self.acknowledged.add(name)
            else:
                assert status == 503, answer
                self.refused += 1
                # A sender that is refused lets the others and the node run.
                await asyncio.sleep(0.01)

    async def reaches(self, count: int) -> None:
        """Wait until so many more events were acknowledged."""
        wanted = len(self.acknowledged) + count

        async def reached() -> bool:
            return len(self.acknowledged) >= wanted

        await eventually(reached, 20)

    async def is_received(self) -> None:
        """Wait until everything was received that is acknowledged by now."""
        wanted = set(self.acknowledged)

        async def all_received() -> bool:
            wanted.difference_update(self.received)
            return not wanted

        await eventually(all_received, 20)

    def check(self) -> None:
        assert len(self.received) == len(set(self.received)), "delivered twice"
        missing = self.acknowledged - set(self.received)
        assert not missing, f"{len(missing)} of {len(self.acknowledged)} acknowledged events were lost"
        assert set(self.received) <= self.sent
        for sender in {name.split()[0] for name in self.received}:
            numbers = [int(name.split()[1]) for name in self.received if name.split()[0] == sender]
            assert numbers == sorted(numbers), "out of order"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["restart", "kill -9"])
async def test_nothing_is_lost_or_repeated_when_redis_dies_under_load(
    durable: NodeProcess, how: signal.Signals
) -> None:
    async with tenant_of(durable) as tenant:
        user = await tenant.user()
        load = Load(tenant, [await tenant.home(user) for _ in range(4)])
        async with await listen(durable.url, EVENTS, user.key) as socket:

            async def receive_all() -> None:
                # Each sender says goodbye when all its others are acknowledged.
                missing = {"bye 0", "bye 1", "bye 2", "bye 3"}
                while missing:
                    kind = await socket.receive_type(within=30)
                    if kind.startswith("bye"):
                        missing.discard(kind)
                    else:
                        load.received.append(kind)

            listening = asyncio.create_task(receive_all())
            senders = asyncio.gather(*(load.send(number) for number in range(8)))
            for _ in range(3):
                await load.reaches(150)
                # So the readers are back, and lose their Redis once more.
                await load.is_received()
                pid = await redis_pid(tenant)
                os.kill(pid, how)

                async def restarted(old: int = pid) -> bool:
                    try:
                        return await redis_pid(tenant) != old
                    except (RedisError, OSError):
                        return False

                await eventually(restarted, 20)
            await load.reaches(150)
            load.stopping = True
            await senders
            await tenant.send(
                *({"homeId": home, "eventType": f"bye {n}"} for n, home in enumerate(load.homes))
            )
            await listening
            assert await socket.is_alive()
        load.check()
        metrics = await durable.metrics()
        assert metrics["tail_reconnects_total"] >= 3
        assert metrics["malformed_total"] == 0


async def test_hanging_redis_recovers(durable: NodeProcess) -> None:
    async with tenant_of(durable) as tenant:
        user = await tenant.user()
        home = await tenant.home(user)
        device = await tenant.device(home)
        async with await listen(durable.url, EVENTS, user.key) as socket:
            pid = await redis_pid(tenant)
            with suspended(pid):
                for remembered in (True, False):
                    await all_refused(tenant, home, user, device, remembered=remembered)

                async def unready() -> bool:
                    async with tenant.http.get("/readyz") as answer:
                        return answer.status == 503 and "Retry-After" in answer.headers

                await eventually(unready)
                async with tenant.http.get("/healthz") as answer:
                    assert answer.status == 200
                # Sockets stay.
                assert (await durable.metrics())["connections"] == 1

            async def ready() -> bool:
                async with tenant.http.get("/readyz") as answer:
                    return answer.status == 200

            await eventually(ready)
            await tenant.send({"homeId": home, "eventType": "goes on"})
            all_received = []
            while "goes on" not in all_received:
                all_received.append(await socket.receive_type())
            # What was answered 503 may have happened, but never twice.
            assert len(all_received) == len(set(all_received))
            async with await listen(durable.url, EVENTS, user.key) as fresh:
                await tenant.send({"homeId": home, "eventType": "for both"})
                assert await fresh.receive_type() == await socket.receive_type() == "for both"


async def all_refused(tenant: Tenant, home: int, user: Account, device: Account, *, remembered: bool) -> None:
    """Every way in, all at once. While the node remembers the user's key it may still let them in."""
    started = asyncio.get_running_loop().time()

    async def put(path: str, key: str, body: object) -> None:
        async with tenant.http.put(path, json=body, headers={"Authorization": key}) as answer:
            assert answer.status == 503, path
            assert int(answer.headers["Retry-After"]) >= 1
            problem = await answer.json()
            assert problem["reason"] in ("NOT_CONFIRMED", "TEMPORARILY_UNAVAILABLE")

    async def bulk() -> None:
        items = [{"homeId": home, "eventType": f"bulk {started}"}]
        async with tenant.http.post("/events", json=items, headers={"Authorization": tenant.key}) as answer:
            assert answer.status == 503
            assert "Retry-After" in answer.headers

    async def handshake() -> None:
        try:
            socket = await listen(tenant.url, EVENTS, user.key)
        except Refused as refused:
            answer = refused.answer
        else:
            await socket.drop()
            assert remembered
            return
        assert answer.status == 503
        assert "retry-after" in answer.headers

    event = {"eventType": f"{started} hung"}
    await asyncio.gather(
        put(f"/homes/{home}/event", tenant.key, event),
        put(f"/devices/{device.id}/event", device.key, {"eventType": f"{started} device"}),
        put(f"/devices/{device.id}/command", user.key, {"action": "a"}),
        bulk(),
        handshake(),
    )
