"""Carries out plans of `delivery_plan.py` on two nodes, and notes what the model needs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from time import monotonic
from typing import Any, Final

import aiohttp
import delivery_closing
import orjson
from delivery_model import NOWHERE, Event, Fact, Key, Kind, Listener, Truth
from delivery_plan import KEYS, USERS
from delivery_steps import (
    AddMember,
    Connect,
    CreateHome,
    DeleteDevice,
    DeleteHome,
    DeleteUser,
    EndSession,
    Item,
    Leave,
    MoveDevice,
    Order,
    Plan,
    RemoveMember,
    RotateKey,
    Send,
    SendMany,
    SendWithOldKey,
    Step,
    SwitchHome,
    SwitchProject,
    Track,
)

from kit.client import CLOSE, PING, PONG, TEXT, Refused, Socket, close_frame, listen
from kit.tenant import new_project, project_of
from kit.two_nodes import Pair

TIMEOUT_S: Final = 10.0
"""Far beyond what anything here takes."""
FOREVER_S: Final = 3600.0
REFUSED: Final = frozenset({401, 403, 404})


@dataclass
class Seat:
    """A listener's end of the connection."""

    listener: Listener
    socket: Socket
    assured: float = -inf
    """Up to here it was waited for that the listener received what it had to."""
    reader: asyncio.Task[None] | None = None
    answered: asyncio.Event | None = None

    @property
    def is_open(self) -> bool:
        return self.listener.code is None and self.listener.left == inf


class DeliveryRun:
    """One project, as a plan begins; `run` takes the plan's rounds."""

    def __init__(self, plan: Plan, pair: Pair, clients: Sequence[aiohttp.ClientSession]) -> None:
        self.plan = plan
        self.truth = Truth(plan.by_permission)
        self.listeners: list[Listener] = []
        self.seats: dict[int, Seat] = {}
        self.events: dict[int, Event] = {}
        self.complaints: list[str] = []
        self.real_homes: dict[int, int] = {}
        self.real_devices: dict[int, int] = {}
        self._pair = pair
        self._clients = clients
        self._stored = project_of(pair.redis, 0)
        self._project_key = ""
        self._users: dict[int, int] = {}
        self._tokens: dict[Key, str] = {}
        self._sessions: dict[Key, str] = {}
        self._generations: dict[int, int] = {}
        self._requests = 0
        self._late: list[asyncio.Task[None]] = []
        self._progress = asyncio.Event()

    async def build(self) -> None:
        """Put into the store what is there at the start."""
        access = "permission" if self.plan.by_permission else "membership"
        self._stored = await new_project(self._pair.redis, access_control=access)
        self._project_key = await self._stored.project_key("send-event", "send-command")
        await asyncio.gather(*map(self._make_user, range(USERS)))
        homes = sorted({home for _, home in self.plan.members})
        await asyncio.gather(*map(self._make_home, homes))
        for user, home in self.plan.members:
            self.truth.members[user, home] = Fact(True)
        guests = [member for member in self.plan.members if member[0] != 0]
        await asyncio.gather(*(self._add_member(*member) for member in guests))
        await asyncio.gather(*(self._make_device(*each) for each in enumerate(self.plan.places)))
        await self._prepare()
        await self._pair.caught_up()

    async def _prepare(self) -> None:
        """What else is there at the start."""

    async def _make_user(self, user: int) -> None:
        mail = f"{user}@example.com"
        self._users[user] = (
            await self._stored.store.users.create(self._stored.project, f"user {user}", email=mail)
        ).id
        for number in range(KEYS):
            key = Key(False, user, number)
            session, self._tokens[key] = await self._stored.session(self._users[user])
            self._sessions[key] = session.id

    async def _make_home(self, home: int) -> None:
        made = await self._stored.store.homes.create(self._stored.project, f"home {home}", self._users[0])
        self.real_homes[home] = made.id

    async def _add_member(self, user: int, home: int) -> None:
        await self._stored.store.homes.add_member(
            self._stored.project, self.real_homes[home], self._users[user]
        )

    async def _make_device(self, device: int, home: int) -> None:
        made, token, _ = await self._stored.store.devices.create(
            self._stored.project, "sensor", home_id=self.real_homes.get(home)
        )
        self.real_devices[device], self._generations[device] = made.id, 0
        self._tokens[Key(True, device, 0)] = token
        self.truth.places[device] = Fact(home)

    async def act(self, tracks: Sequence[Track]) -> None:
        """The tracks of a round, at the same time. Who asks a stopped node does not wait for its answer."""
        await asyncio.gather(*map(self._run_track, tracks))

    async def settle(self) -> None:
        """Wait for late answers, required deliveries and required closes."""
        await asyncio.gather(*self._late)
        self._late.clear()
        await self._settle()

    async def finish(self) -> None:
        """Wait until nothing is on its way any more, so that silence means something."""
        await self._pair.caught_up()
        await asyncio.gather(*(self._echo(seat) for seat in self.seats.values() if seat.is_open))

    async def leave(self) -> None:
        """Every connection goes."""
        for seat in self.seats.values():
            await _end(seat)

    async def _run_track(self, track: Track) -> None:
        for step in track:
            await self._do(step)

    async def _do(self, step: Step) -> None:
        match step:
            case Connect(node=node) if node in self._pair.stopped:
                self._late.append(asyncio.create_task(self._connect(step)))
            case Connect():
                await self._connect(step)
            case Leave(name):
                await self._leave(name)
            case Send(node, item):
                await self._send(node, item)
            case SendMany(node, items):
                await self._send_many(node, items)
            case Order(node, number, device):
                await self._order(node, number, device)
            case SendWithOldKey(node, device):
                await self._send_with_old_key(node, device)
            case _:
                await self._change(step)

    async def _change(self, step: Step) -> None:
        store, truth, project, asked = self._stored.store, self.truth, self._stored.project, monotonic()
        match step:
            case AddMember(user, home) | RemoveMember(user, home):
                added = isinstance(step, AddMember)
                place, guest = self.real_homes[home], self._users[user]
                if step.by_cli:
                    await self._cli("member", "add" if added else "remove", home=place, user=guest)
                elif added:
                    await store.homes.add_member(project, place, guest)
                else:
                    await store.homes.remove_member(project, place, guest)
                truth.members[user, home].become(added, asked, monotonic())
            case EndSession(key):
                await store.sessions.end(project, self._sessions[key])
                truth.keys[key].become(False, asked, monotonic())
            case CreateHome(home):
                await self._make_home(home)
                truth.homes[home] = Fact(False)
                truth.homes[home].become(True, asked, monotonic())
                truth.members[0, home].become(True, asked, monotonic())
            case RotateKey(device):
                await self._rotate(device, step.by_cli)
            case MoveDevice(device, home):
                await self._move(device, home, step.by_cli)
            case SwitchHome(home, on):
                if step.by_cli:
                    await self._cli("home", "activate" if on else "deactivate", home=self.real_homes[home])
                else:
                    await store.homes.set_deactivated(project, self.real_homes[home], not on)
                truth.homes[home].become(on, asked, monotonic())
            case SwitchProject(on):
                if step.by_cli:
                    await self._cli("project", "enable" if on else "disable")
                else:
                    await (store.projects.enable if on else store.projects.disable)(project)
                truth.project.become(on, asked, monotonic())
            case _:
                await self._delete(step)

    async def _delete(self, step: Step) -> None:
        store, truth, project, asked = self._stored.store, self.truth, self._stored.project, monotonic()
        match step:
            case DeleteUser(user):
                if step.by_cli:
                    await self._cli("user", "delete", user=self._users[user])
                else:
                    await store.users.delete(project, self._users[user])
                truth.users[user].become(False, asked, monotonic())
            case DeleteHome(home):
                if step.by_cli:
                    await self._cli("home", "delete", home=self.real_homes[home])
                else:
                    await store.homes.delete(project, self.real_homes[home])
                truth.homes[home].become(False, asked, monotonic())
            case DeleteDevice(device):
                if step.by_cli:
                    await self._cli("device", "delete", device=self.real_devices[device])
                else:
                    await store.devices.delete(project, self.real_devices[device])
                truth.devices[device].become(False, asked, monotonic())
            case _:
                raise TypeError(step)

    async def _rotate(self, device: int, by_cli: bool) -> None:
        asked, real = monotonic(), self.real_devices[device]
        if by_cli:
            token = str((await self._cli("device", "rotate-key", device=real))["apiKey"])
        else:
            token = await self._stored.store.devices.rotate_key(self._stored.project, real)
        old = Key(True, device, self._generations[device])
        new = replace(old, number=old.number + 1)
        self.truth.keys[old].become(False, asked, monotonic())
        self.truth.keys[new] = Fact(False)
        self.truth.keys[new].become(True, asked, monotonic())
        self._tokens[new], self._generations[device] = token, new.number

    async def _move(self, device: int, home: int, by_cli: bool) -> None:
        asked, real, place = monotonic(), self.real_devices[device], self.real_homes.get(home)
        if by_cli:
            into = {"home": place} if place is not None else {}
            await self._cli("device", "move", device=real, **into)
        else:
            await self._stored.store.devices.move(self._stored.project, real, place)
        # Until its tail has read so, a node takes the device's events as those of the old home.
        await self._pair.caught_up()
        self.truth.places[device].become(home, asked, monotonic())

    async def _cli(self, *words: str, **options: int) -> Any:
        return await self._pair.cli(*words, project=self._stored.project, **options)

    async def _connect(self, step: Connect) -> None:
        path, key, wanted = "/userSession/websocket", step.key, step.filter
        if wanted.kind is Kind.COMMANDS:
            path = f"/devices/{self.real_devices[key.whose]}/command"
        real = {Kind.HOMES: self.real_homes, Kind.DEVICES: self.real_devices}.get(wanted.kind, {})
        if any(each not in real for each in wanted.ids):
            return  # A home that another track of the round has yet to make.
        values = [*(str(real[each]) for each in wanted.ids), *wanted.entities]
        query = "&".join(f"{wanted.kind.value}={value}" for value in values)
        listener = Listener(step.listener, step.node, key, wanted, monotonic(), inf)
        url = self._pair.nodes[step.node].url
        try:
            socket = await listen(url, f"{path}?{query}" if query else path, self._tokens[key])
        except Refused as refused:
            listener.status = refused.answer.status
        listener.answered = monotonic()
        self.listeners.append(listener)
        if listener.accepted:
            seat = self.seats[step.listener] = Seat(listener, socket)
            seat.reader = asyncio.create_task(self._read(seat))

    async def _read(self, seat: Seat) -> None:
        listener = seat.listener
        try:
            while listener.code is None:
                frame = await seat.socket.receive(FOREVER_S)
                if frame.opcode == TEXT:
                    listener.received.append((*self._named(orjson.loads(frame.payload)), monotonic()))
                elif frame.opcode == CLOSE:
                    listener.code, listener.closed = frame.close_code, monotonic()
                    await seat.socket.send_bytes(close_frame(frame.close_code))
                elif frame.opcode == PONG and seat.answered is not None:
                    seat.answered.set()
                self._progress.set()
        except (ConnectionError, asyncio.IncompleteReadError):
            # Without a close frame: 1006 of RFC 6455.
            listener.code, listener.closed = listener.code or 1006, monotonic()
            self._progress.set()
        except Exception as error:
            self.complaints.append(f"listener {listener.name} could not be understood: {error!r}")
            raise

    def _named(self, message: dict[str, Any]) -> tuple[int, int]:
        """Number and home of an event, number and NOWHERE of a command."""
        if "action" in message:
            return int(message["action"]), NOWHERE
        homes = {real: home for home, real in self.real_homes.items()}
        return int(message["eventType"]), homes.get(message["homeId"], NOWHERE)

    async def _leave(self, name: int) -> None:
        seat = self.seats.get(name)
        if seat is None or not seat.is_open:
            return
        seat.listener.left = monotonic()
        if name % 2 and seat.listener.node not in self._pair.stopped:
            await seat.socket.send_bytes(close_frame(1000))
            assert seat.reader is not None
            await asyncio.wait_for(seat.reader, TIMEOUT_S)
        await _end(seat)

    async def _echo(self, seat: Seat) -> None:
        """What the node wrote to this connection before now has arrived."""
        seat.answered = asyncio.Event()
        await seat.socket.send(PING, b"echo")
        assert seat.reader is not None
        answered = asyncio.create_task(seat.answered.wait())
        async with asyncio.timeout(TIMEOUT_S):
            await asyncio.wait([answered, seat.reader], return_when=asyncio.FIRST_COMPLETED)
        answered.cancel()

    async def _send(self, node: int, item: Item) -> None:
        if item.device is not None:
            key = Key(True, item.device, self._generations[item.device])
            path, token = f"/devices/{self.real_devices[item.device]}/event", self._tokens[key]
        elif item.home in self.real_homes:
            key, path, token = None, f"/homes/{self.real_homes[item.home]}/event", self._project_key
        else:
            return  # As in `_connect`.
        body = {"eventType": str(item.number), **({"entityId": item.entity} if item.entity else {})}
        asked = monotonic()
        status = await self._put(node, path, token, body)
        self._note(item, asked, monotonic(), status, key)

    async def _send_many(self, node: int, items: Sequence[Item]) -> None:
        known = [item for item in items if item.device is not None or item.home in self.real_homes]
        body = [self._in_bulk(item) for item in known]
        headers, asked = {"Authorization": self._project_key}, monotonic()
        async with self._clients[node].post("/events", data=orjson.dumps(body), headers=headers) as answer:
            content = await answer.json()
            answered = monotonic()
        statuses = [answer.status] * len(known)
        if answer.status == 200:
            statuses = [result["status"] for result in content["results"]]
        self._requests += 1
        for item, status in zip(known, statuses, strict=True):
            self._note(item, asked, answered, status, None, self._requests)

    def _in_bulk(self, item: Item) -> dict[str, Any]:
        address = {"homeId": self.real_homes.get(item.home)}
        if item.device is not None:
            address = {"deviceId": self.real_devices[item.device]}
        entity = {"entityId": item.entity} if item.entity else {}
        return {**address, **entity, "eventType": str(item.number)}

    async def _order(self, node: int, number: int, device: int) -> None:
        path, asked = f"/devices/{self.real_devices[device]}/command", monotonic()
        status = await self._put(node, path, self._project_key, {"action": str(number)})
        taken, answered = self._taken(number, status), monotonic()
        self.events[number] = Event(number, asked, answered, taken, device=device, command=True)

    async def _send_with_old_key(self, node: int, device: int) -> None:
        await self._pair.caught_up()
        token = self._tokens[Key(True, device, self._generations[device] - 1)]
        path = f"/devices/{self.real_devices[device]}/event"
        status = await self._put(node, path, token, {"eventType": "0"})
        if status not in (401, 403):
            self.complaints.append(f"an event by the old key of device {device} was answered with {status}")

    async def _put(self, node: int, path: str, token: str, body: dict[str, Any]) -> int:
        headers = {"Authorization": token}
        async with self._clients[node].put(path, data=orjson.dumps(body), headers=headers) as answer:
            await answer.read()
            return answer.status

    def _note(
        self, item: Item, asked: float, answered: float, status: int, key: Key | None, request: int = 0
    ) -> None:
        taken = self._taken(item.number, status)
        self.events[item.number] = Event(
            item.number, asked, answered, taken, item.home, item.device, item.entity,
            request=request, key=key,
        )  # fmt: skip

    def _taken(self, number: int, status: int) -> bool:
        if status != 204 and status not in REFUSED:
            self.complaints.append(f"event {number} was answered with {status}")
        return status == 204

    async def _settle(self) -> None:
        now, until = monotonic(), monotonic() + TIMEOUT_S
        missing = {name: self._expected(seat) for name, seat in self.seats.items() if seat.is_open}
        while any(self._waits(self.seats[name], numbers) for name, numbers in missing.items()):
            self._progress.clear()
            try:
                await asyncio.wait_for(self._progress.wait(), until - monotonic())
            except TimeoutError:
                return  # The judge will say what is missing.
        for name in missing:
            self.seats[name].assured = now

    def _expected(self, seat: Seat) -> set[int]:
        events = self.events.values()
        return {event.number for event in events if self.truth.must_receive(seat.listener, event)}

    def _waits(self, seat: Seat, numbers: set[int]) -> bool:
        if not seat.is_open:
            return False
        if delivery_closing.due(self.truth, seat.listener) < inf:
            return True
        numbers.difference_update(number for number, _, _ in seat.listener.received)
        return bool(numbers)


async def _end(seat: Seat) -> None:
    if seat.listener.left == inf:
        seat.listener.left = monotonic()
    if seat.reader is not None:
        seat.reader.cancel()
        await asyncio.wait([seat.reader])
    await seat.socket.drop()
