"""From registration to an event on a WebSocket and a command back, as clients of each account system talk.

All goes through HTTP and WebSockets. Only what an operator makes is put into the store: the project, its app
and keys, and a device that is sold with its key and claim code.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from kit.accounts import APP, EMAIL, PASSWORD, PHONE, TenantWithApp, reason, tenant_with_app
from kit.client import CLOSE, Socket, listen, refusal
from kit.node import NodeProcess, private_node
from kit.tenant import Account
from kit.webhook_receiver import receiving, register

EVENTS = "/userSession/websocket"
DELETED = 4501
"""docs/close-codes.md: the user or device of the key is deleted."""


@pytest.fixture(scope="module")
def node() -> Iterator[NodeProcess]:
    """One whose webhooks may be on loopback."""
    with private_node(webhook_private_addresses="true") as running:
        yield running


@dataclass
class Talk:
    """What the clients of one project say. Each answer must have the status that its table gives."""

    people: TenantWithApp

    async def ask(self, status: int, method: str, path: str, key: str | None, body: Any = None) -> Any:
        """The JSON of the answer; the body goes as JSON."""
        return self._checked(status, await self.people.ask(method, path, key, body))

    async def post(self, status: int, path: str, key: str | None, **form: Any) -> Any:
        """The same with a web form, as clients post to the endpoints that take one."""
        return self._checked(status, await self.people.ask("POST", path, key, data=form))

    @staticmethod
    def _checked(status: int, reply: Any) -> Any:
        assert reply.status == status, reply
        return reply.body

    async def device_for_sale(self) -> tuple[Account, str]:
        """A pre-provisioned device, and the claim code on its label."""
        devices, project = self.people.store.devices, self.people.project
        device, key, code = await devices.create(project, "lamp")
        return Account(device.id, key), code

    async def claim(self, key: str, home: int, device: Account, code: str) -> None:
        """The device's button is pressed, and somebody types its code into the app."""
        state = await self.post(200, "/deviceRegistration", device.key, deviceId=device.id, claimable="1")
        assert state.keys() == {"claimExpirationTime"}
        claimed = await self.post(201, "/devices", key, homeId=home, claimCode=code)
        assert (claimed["id"], claimed["homeId"]) == (device.id, home)

    async def device_says(self, device: Account, event_type: str, data: Any) -> None:
        body = {"eventType": event_type, "eventData": data}
        await self.ask(204, "PUT", f"/devices/{device.id}/event", device.key, body)

    async def command(self, key: str, device: Account, receiver: Socket, command: Any) -> None:
        """What is put to the device arrives there, nothing added."""
        await self.ask(204, "PUT", f"/devices/{device.id}/command", key, command)
        assert await receiver.receive_json() == command

    def ear(self, key: str) -> Any:
        """A WebSocket of events without a filter."""
        return listen_to(self.people, EVENTS, key)

    def socket_of(self, device: Account) -> Any:
        """The device's command socket."""
        return listen_to(self.people, f"/devices/{device.id}/command", device.key)

    async def user_goes(self, user: int, key: str, ears: list[Socket], admin: str) -> None:
        """They are deleted: who listens with their keys is told so, and the keys are dead."""
        await self.ask(204, "DELETE", f"/users/{user}", key)
        for ear in ears:
            last = await ear.receive()
            assert (last.opcode, last.close_code) == (CLOSE, DELETED)
        await self.is_dead(key)
        assert user not in await self.users(admin)

    async def users(self, admin: str) -> list[int]:
        """Who is registered, as a server sees it."""
        return [each["id"] for each in await self.ask(200, "GET", "/users", admin)]

    async def is_dead(self, key: str) -> None:
        await self.ask(401, "GET", "/homes?userId=1", key)
        assert await self.ask(200, "GET", "/auth", key) == {"type": "nobody"}
        assert (await refusal(self.people.url, EVENTS, key)).status == 401


@asynccontextmanager
async def listen_to(people: TenantWithApp, path: str, key: str) -> AsyncIterator[Socket]:
    async with await listen(people.url, path, key, receives_presence=True) as socket:
        yield socket


@asynccontextmanager
async def talk_of(node: NodeProcess, accounts: str, **options: Any) -> AsyncIterator[Talk]:
    async with tenant_with_app(node, accounts, **options) as people:
        yield Talk(people)


async def signed_in_by_email(talk: Talk, name: str, email: str) -> tuple[int, str]:
    """Somebody registers, follows the link in the mail and logs in: id and key."""
    people = talk.people
    registered = await people.register(name=name, email=email, password=PASSWORD)
    assert (registered.status, registered.body["verified"]) == (201, False)
    assert reason(await people.sign_in(email=email, password=PASSWORD)) == "USER_UNVERIFIED"
    message = (await people.messages(email))[-1]
    await talk.post(200, "/auth/user/emailVerification", None, token=message.token)
    credentials = {"projectId": people.project, "appId": APP, "email": email, "password": PASSWORD}
    session = await talk.post(200, "/auth/user", None, **credentials)
    assert session["userId"] == registered.body["id"]
    return session["userId"], session["token"]


async def signed_in_by_phone(talk: Talk, name: str, phone: str) -> tuple[int, str]:
    """Somebody registers and types in the code of the SMS."""
    people = talk.people
    registered = await people.register(name=name, phoneNumber=phone)
    assert registered.status == 201
    message = (await people.messages(phone))[-1]
    session = await sign_in_by_code(talk, phone, message.code)
    return registered.body["id"], session["token"]


async def sign_in_by_code(talk: Talk, phone: str, code: str) -> Any:
    form = {"projectId": talk.people.project, "appId": APP, "phoneNumber": phone, "code": code}
    return await talk.post(200, "/auth/user", None, **form)


async def test_family_with_email_accounts(node: NodeProcess) -> None:
    async with talk_of(node, "email") as talk:
        admin = await talk.people.project_key("admin")
        ada, key = await signed_in_by_email(talk, "Ada", EMAIL)
        home = (await talk.ask(201, "POST", "/homes", key, {"name": "Hut"}))["id"]

        # Bob is invited before he is a user, and is the one who was invited when he registers.
        members = f"/homes/{home}/members"
        invited = (await talk.ask(201, "POST", members, key, {"email": "bob@example.com"}))["userId"]
        assert await talk.users(admin) == [ada]
        bob, key_of_bob = await signed_in_by_email(talk, "Bob", "bob@example.com")
        assert bob == invited
        assert [each["id"] for each in await talk.ask(200, "GET", f"/homes?userId={bob}", key_of_bob)] == [
            home
        ]
        # He looks at it, and so accepts.
        assert "name" not in await talk.ask(200, "GET", f"{members}/{bob}", key)
        await talk.ask(200, "GET", f"/homes/{home}", key_of_bob)
        assert (await talk.ask(200, "GET", f"{members}/{bob}", key))["name"] == "Bob"

        lamp, code = await talk.device_for_sale()
        await talk.claim(key, home, lamp, code)
        async with talk.ear(key) as ear, talk.ear(key_of_bob) as ear_of_bob:
            ears = [ear, ear_of_bob]

            async def receives(event_type: str, device: int | None, data: Any = None) -> None:
                for each in ears:
                    event = await each.receive_json()
                    assert (event["eventType"], event["homeId"]) == (event_type, home)
                    assert (event.get("originDeviceId"), event.get("eventData")) == (device, data)

            async with talk.socket_of(lamp) as receiver:
                await receives("_deviceConnected_", lamp.id)
                await talk.device_says(lamp, "lit", {"lumen": 2**60})
                await receives("lit", lamp.id, {"lumen": 2**60})
                await talk.ask(204, "PUT", f"/homes/{home}/kv/mood", key, {"value": ["calm"]})
                await receives("_keyValueSaved_", None, {"key": "mood", "value": ["calm"]})
                await talk.command(key, lamp, receiver, {"action": "dim", "parameters": {"to": 0.5}})
                await talk.command(key_of_bob, lamp, receiver, {"action": "off"})
            await receives("_deviceDisconnected_", lamp.id)

            await talk.user_goes(ada, key, [ear], admin)
            # The home is Bob's now, and goes on.
            shown = await talk.ask(200, "GET", f"{members}/{bob}", key_of_bob)
            assert shown["role"] == "owner"
            ears = [ear_of_bob]
            await talk.device_says(lamp, "still there", None)
            await receives("still there", lamp.id)


async def test_family_with_phone_accounts(node: NodeProcess) -> None:
    async with talk_of(node, "phone", on_demand=True) as talk:
        people, admin = talk.people, await talk.people.project_key("admin")
        ada, key = await signed_in_by_phone(talk, "Ada", PHONE)
        # She logs in on a second telephone, with a second code.
        started = {"projectId": people.project, "phoneNumber": PHONE}
        receipt = await talk.post(200, "/auth/user/sms", None, **started)
        assert receipt == {"recipient": PHONE}
        second = (await sign_in_by_code(talk, PHONE, await people.code()))["token"]
        home = (await talk.ask(201, "POST", "/homes", second, {"name": "Hut"}))["id"]

        number = "+14155550124"
        members = f"/homes/{home}/members"
        invited = (await talk.ask(201, "POST", members, key, {"phoneNumber": number}))["userId"]
        bob, key_of_bob = await signed_in_by_phone(talk, "Bob", number)
        assert bob == invited
        await talk.ask(200, "GET", f"/homes/{home}", key_of_bob)

        # The app gets a token for the lamp, and the lamp becomes a device by itself.
        asked = {"deviceClass": "lamp", "deviceTag": "hall"}
        token = await talk.post(200, f"/homes/{home}/deviceProvisioning", key, **asked)
        made = await talk.post(201, "/devices", None, token=token["token"])
        assert (made["homeId"], made["deviceClass"], made["tag"]) == (home, "lamp", "hall")
        lamp = Account(made["id"], made["apiKey"], home)
        again = await people.ask("POST", "/devices", None, data={"token": token["token"]})
        assert reason(again) == "INVALID_TOKEN"

        async with talk.ear(key) as ear, talk.ear(second) as other, talk.ear(key_of_bob) as ear_of_bob:
            async with talk.socket_of(lamp) as receiver:
                for each in (ear, other, ear_of_bob):
                    assert await each.receive_type() == "_deviceConnected_"
                await talk.device_says(lamp, "lit", {"by": "hand"})
                for each in (ear, other, ear_of_bob):
                    event = await each.receive_json()
                    assert (event["eventType"], event["eventData"]) == ("lit", {"by": "hand"})
                    assert (event["homeId"], event["originDeviceId"]) == (home, lamp.id)
                await talk.command(key_of_bob, lamp, receiver, {"action": "off"})
                # Of a device that was provisioned on demand nothing stays.
                await talk.ask(204, "DELETE", f"/devices/{lamp.id}", key)
                last = await receiver.receive()
                assert (last.opcode, last.close_code) == (CLOSE, DELETED)
            await talk.ask(404, "GET", f"/devices/{lamp.id}", admin)
            await talk.is_dead(lamp.key)
            await talk.user_goes(ada, key, [ear, other], admin)
            await talk.is_dead(second)


async def test_server_that_brings_its_own_users(node: NodeProcess) -> None:
    async with talk_of(node, "byou") as talk, receiving() as receiver:
        people = talk.people
        everything = "byou", "send-event", "send-command", "read"
        server, bare = await people.project_key(*everything), await people.project_key()
        body = {"projectId": people.project, "name": "Ada", "externalKey": "ada of the shop"}
        for key in (None, bare):
            await talk.ask(403, "POST", "/users", key, body)
        ada = await talk.ask(201, "POST", "/users", server, body)
        assert (ada["externalKey"], ada["verified"]) == ("ada of the shop", True)
        bob = (await talk.ask(201, "POST", "/users", server, {"projectId": people.project}))["id"]
        await talk.post(401, "/auth/user", None, projectId=people.project, userId=ada["id"])
        session = await talk.post(200, "/auth/user", server, projectId=people.project, userId=ada["id"])
        key = session["token"]
        home = (await talk.ask(201, "POST", "/homes", key, {"name": "Hut"}))["id"]
        await talk.ask(201, "POST", f"/homes/{home}/members", key, {"userId": bob})
        lamp, code = await talk.device_for_sale()
        await talk.claim(key, home, lamp, code)

        # Nobody listens to events in such a project (spec 000, Listen to events) ...
        for path in (EVENTS, f"{EVENTS}?homeId={home}"):
            assert (await refusal(people.url, path, key)).status == 403
        # ... but who sends them can, the server's webhook is told of them, and commands reach the device.
        await register(people, node, receiver.url)
        await talk.device_says(lamp, "lit", {"n": 1})
        await talk.ask(204, "PUT", f"/homes/{home}/event", server, {"eventType": "tick"})
        told = [(await receiver.next()).event for _ in range(2)]
        assert {(each["eventType"], each["homeId"]) for each in told} == {("lit", home), ("tick", home)}
        async with talk.socket_of(lamp) as socket:
            await talk.command(server, lamp, socket, {"action": "off"})
            await talk.command(key, lamp, socket, {"action": "on", "parameters": {"n": 2**60}})
            assert (await receiver.next()).event["eventType"] == "_deviceConnected_"
            shown = await talk.ask(200, "GET", f"/devices/{lamp.id}", server)
            assert shown["isConnected"]
        assert (await receiver.next()).event["eventType"] == "_deviceDisconnected_"

        await talk.user_goes(ada["id"], key, [], server)
        (left,) = await talk.ask(200, "GET", f"/homes/{home}/members", server)
        assert (left["userId"], left["role"]) == (bob, "owner")
