"""Everything that a project can have, made by its clients: what deletions have to take away again."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from kit.accounts import APP, PASSWORD, TenantWithApp
from kit.client import listen
from kit.node import NodeProcess, eventually
from kit.tenant import SCOPES, Account
from kit.webhook_receiver import Received, Receiver, register

FAILING: Final = "deaf"
"""The smart module whose receiver refuses everything."""
GOOD: Final = "good"


async def refuse_failing(received: Received) -> int:
    """The answer of a receiver that one module reaches and the other does not."""
    return 500 if FAILING in received.path else 200


@dataclass
class Life:
    """One project. `begin` fills it, `end` takes all of it away again through the API."""

    node: NodeProcess
    people: TenantWithApp
    accounts: str
    on_demand: bool
    receiver: Receiver
    server: str = ""
    """A project key that may do everything."""
    ada: Account = field(default_factory=lambda: Account(0, ""))
    bob: Account = field(default_factory=lambda: Account(0, ""))
    guest: int = 0
    """Invited, and never registered; 0 where nobody can be."""
    homes: list[int] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)
    devices: list[Account] = field(default_factory=list)
    """The first two are in the first home, the third in the second; a fourth may be in none."""
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(100))

    async def ask(self, status: int, method: str, path: str, key: str | None, body: Any = None) -> Any:
        """The answer's JSON; it must have this status."""
        reply = await self.people.ask(method, path, key, body)
        assert reply.status == status, (method, path, reply)
        return reply.body

    async def post(self, status: int, path: str, key: str | None, **form: Any) -> Any:
        """The same with a web form."""
        reply = await self.people.ask("POST", path, key, data=form)
        assert reply.status == status, (path, reply)
        return reply.body

    async def begin(self) -> None:
        """Make everything."""
        self.server = await self.people.project_key(*SCOPES)
        self.ada, self.bob = await self._person(), await self._person()
        await self._homes()
        await self._devices()
        await self._values()
        await self._modules()
        await self._permissions()
        await self._events_and_commands()
        # Wrong guesses are counted, and a session that was ended is kept for its owner.
        await self.people.sign_in(email="nobody@example.com", password="wrong")
        sessions = self.people.store.sessions
        opened, _ = await self.people.session(self.bob.id, APP)
        await sessions.end(self.people.project, opened.id)
        # Of one that is deleted by its user, one that goes with its home, and one that stays.
        for device in (self.devices[0], *self.devices[2:]):
            await self.people.node_session(device.id)

    async def end(self) -> None:
        """Delete it all, as its owners would."""
        first, second = self.homes
        store, project = self.people.store, self.people.project
        await self.ask(204, "DELETE", f"/homes/{first}/kv/mood", self.ada.key)
        await self.ask(204, "DELETE", f"/projects/{project}/entities/sink", self.server)
        await self.ask(204, "DELETE", f"/devices/{self.devices[0].id}", self.ada.key)
        if self.guest:
            await self.ask(204, "DELETE", f"/homes/{second}/members/{self.guest}", self.ada.key)
        await self.ask(204, "DELETE", f"/homes/{first}", self.ada.key)
        # The second home goes with its only member.
        await self.ask(204, "DELETE", f"/users/{self.bob.id}", self.bob.key)
        # One group is left by a user who is deleted, the other is deleted with somebody in it.
        await self.ask(204, "DELETE", f"/projects/{project}/groups/{self.groups[0]}", self.server)
        await self.ask(204, "DELETE", f"/users/{self.ada.id}", self.ada.key)
        await self.ask(204, "DELETE", f"/projects/{project}/groups/{self.groups[1]}", self.server)
        # Smart modules, and devices that were there before anybody claimed them, are the operator's.
        for module in (FAILING, GOOD):
            await store.smart_modules.delete(project, module)
        for device in (await store.devices.page(project))[0]:
            await store.devices.delete(project, device.id)

    async def _person(self) -> Account:
        """Somebody who registered, has a key, and has asked for another proof that they will not use."""
        people, number = self.people, next(self._numbers)
        if self.accounts == "email":
            email = f"{number}@example.com"
            assert (await people.register(name="A", email=email, password=PASSWORD)).status == 201
            await self.post(200, "/auth/user/emailVerification", None, token=await people.token())
            session = (await people.sign_in(email=email, password=PASSWORD)).body
            assert (await people.start("passwordReset/start", email=email)).status == 200
        elif self.accounts == "phone":
            phone = f"+1415555{number:04}"
            assert (await people.register(name="A", phoneNumber=phone)).status == 201
            session = (await people.sign_in(phoneNumber=phone, code=await people.code())).body
            assert (await people.start("sms", phoneNumber=phone)).status == 200
        else:
            body = {"projectId": people.project, "externalKey": f"customer {number}"}
            user = (await self.ask(201, "POST", "/users", self.server, body))["id"]
            session = (await people.sign_in(self.server, userId=user)).body
        return Account(session["userId"], session["token"])

    async def _homes(self) -> None:
        for name in ("Hut", "Tent"):
            home = await self.ask(201, "POST", "/homes", self.ada.key, {"name": name})
            self.homes.append(home["id"])
        guest: dict[str, Any] = {
            "email": {"email": "guest@example.com"},
            "phone": {"phoneNumber": "+14155559999"},
        }.get(self.accounts, {})
        if guest:
            for home in self.homes:
                members = f"/homes/{home}/members"
                self.guest = (await self.ask(201, "POST", members, self.ada.key, guest))["userId"]
        first = f"/homes/{self.homes[0]}/members"
        # Whoever is invited by address or by id: it is Bob.
        bob = {"userId": self.bob.id}
        if self.accounts != "byou":
            user = await self.ask(200, "GET", f"/users/{self.bob.id}", self.bob.key)
            bob = {name: user[name] for name in ("email", "phoneNumber") if name in user}
        await self.ask(201, "POST", first, self.ada.key, bob)

    async def _devices(self) -> None:
        for home in (self.homes[0], self.homes[0], self.homes[1]):
            self.devices.append(await (self._provisioned(home) if self.on_demand else self._claimed(home)))
        if self.on_demand:
            # A token that nobody uses.
            await self.post(200, f"/homes/{self.homes[1]}/deviceProvisioning", self.ada.key, deviceClass="x")
        else:
            self.devices.append((await self._claimable())[0])

    async def _provisioned(self, home: int) -> Account:
        path = f"/homes/{home}/deviceProvisioning"
        token = (await self.post(200, path, self.ada.key, deviceClass="lamp"))["token"]
        made = await self.post(201, "/devices", None, token=token)
        return Account(made["id"], made["apiKey"], home)

    async def _claimed(self, home: int) -> Account:
        device, code = await self._claimable()
        await self.post(201, "/devices", self.ada.key, homeId=home, claimCode=code)
        return Account(device.id, device.key, home)

    async def _claimable(self) -> tuple[Account, str]:
        device, key, code = await self.people.store.devices.create(self.people.project, "lamp")
        await self.post(200, "/deviceRegistration", key, deviceId=device.id, claimable="1")
        return Account(device.id, key), code

    async def _values(self) -> None:
        ada = self.ada.key
        for home in self.homes:
            await self.ask(204, "PUT", f"/homes/{home}/kv/mood", ada, {"value": "calm"})
            await self.ask(204, "PUT", f"/homes/{home}/kv/rest", ada, {"value": [1, 2]})
        for device in self.devices[:3]:
            await self.ask(204, "PUT", f"/devices/{device.id}/kv/level", device.key, {"value": 0.5})
            await self.ask(204, "PATCH", f"/devices/{device.id}", ada, {"name": "mine"})
        entities = f"/projects/{self.people.project}/entities"
        for home, (name, parent) in itertools.product(self.homes, (("room", None), ("sink", "room"))):
            suffix = "" if home == self.homes[0] else " 2"
            body = {"entityId": name + suffix, "entityClass": "part", "homeId": home}
            more = {} if parent is None else {"parentId": parent + suffix}
            await self.ask(201, "POST", entities, self.server, body | more)

    async def _modules(self) -> None:
        self.receiver.answer = refuse_failing
        for module, homes in ((GOOD, None), (FAILING, [self.homes[0]])):
            url = f"{self.receiver.origin}/{module}"
            await register(self.people, self.node, url, module=module, homes=homes)

    async def _permissions(self) -> None:
        """Granted to users and to groups, of things that are deleted before and after them."""
        project = f"/projects/{self.people.project}"
        for name, home in zip(("day", "night"), self.homes, strict=True):
            group = (await self.ask(201, "POST", f"{project}/groups", self.server, {"name": name}))["id"]
            self.groups.append(group)
            for user in (self.ada.id, self.bob.id):
                await self.ask(204, "PUT", f"{project}/groups/{group}/members/{user}", self.server)
            for whose in ({"groupId": group}, {"userId": self.ada.id}):
                for permission in (f"read:home-events:{home}", "read:entity-events:sink"):
                    body = {**whose, "permission": permission}
                    await self.ask(204, "POST", f"{project}/permissions", self.server, body)

    async def _is_known_connected(self, device: Account) -> bool:
        seen = await self.ask(200, "GET", f"/devices/{device.id}", device.key)
        return bool(seen["isConnected"])

    async def _events_and_commands(self) -> None:
        tenant = self.people
        for device in self.devices[:3]:
            async with await listen(tenant.url, f"/devices/{device.id}/command", device.key) as socket:
                path = f"/devices/{device.id}/command"
                await self.ask(204, "PUT", path, self.ada.key, {"action": "now"})
                assert (await socket.receive_json())["action"] == "now"
                # Of a device that went before its coming was said, nothing is said.
                await eventually(partial(self._is_known_connected, device))
            path = f"/devices/{device.id}/command?queue=600"
            headers = {"Idempotency_Key": f"once-{device.id}"}
            assert (await tenant.put(path, self.ada.key, {"action": "later"}, **headers))[0] == 204
        headers = {"Idempotency_Key": "only-once"}
        event = {"eventType": "tick"}
        assert (await tenant.put(f"/homes/{self.homes[0]}/event", self.server, event, **headers))[0] == 204

        async def has_dead_letters() -> bool:
            # And one that is still being tried.
            names = self.people.slot
            return bool(await tenant.redis.xlen(names.module_dead(FAILING)))

        await eventually(has_dead_letters, 30.0)
        await self.ask(204, "PUT", f"/homes/{self.homes[0]}/event", self.server, event)
