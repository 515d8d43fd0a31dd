"""`/userSession`: the session that a key is, its end, and what keeps it from being ended."""

from __future__ import annotations

import asyncio
import re
from typing import cast

from kit.accounts import APP, PASSWORD, TenantWithApp, tenant_with_app
from kit.client import CLOSE, listen
from kit.node import NodeProcess, eventually
from kit.tenant import Reply, Tenant

SESSION = "/userSession"
ENDED = 4502


async def signed_in(people: TenantWithApp, email: str = "ada@example.com") -> tuple[int, str, str]:
    """A new user: id, key, and id of the session."""
    user = await people.member(email)
    key = (await people.sign_in(email=email, password=PASSWORD)).body["token"]
    session = await people.store.sessions.of_token(key)
    assert session is not None
    return user, key, session.id


async def is_refused(tenant: Tenant, key: str) -> None:
    """Wait until the node has read that the key ended. Before, it may know that there is no session."""

    async def refused() -> bool:
        status = (await tenant.ask("GET", SESSION, key)).status
        assert status in (401, 404)
        return status == 401

    await eventually(refused)


async def test_user_reads_their_session(node: NodeProcess) -> None:
    async with tenant_with_app(node, "email") as people:
        user, key, session_id = await signed_in(people)
        answer = await people.ask("GET", SESSION, key)
        assert answer.status == 200
        began = answer.body.pop("creationTime")
        assert answer.body == {"userId": user, "appId": APP, "projectId": people.project}
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", began)
        session = await people.store.sessions.get(people.project, session_id)
        assert session is not None
        assert began.endswith(f"{session.started_ms % 1000:03}Z")
        # What the login told of itself.
        assert session.address == "127.0.0.1"
        assert session.host == node.url.partition("//")[2]
        assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", session.node)
        assert session.user_agent.startswith("Python/")


async def test_ending_session_ends_key_and_sockets(node: NodeProcess) -> None:
    async with tenant_with_app(node, "email") as people:
        user, key, _ = await signed_in(people)
        other = await people.key_of(user)
        path = f"{SESSION}/websocket"
        async with (
            await listen(people.url, path, key) as socket,
            await listen(people.url, path, other) as kept,
        ):
            answer = await people.ask("DELETE", SESSION, key)
            assert (answer.status, answer.body) == (204, None)
            frame = await socket.receive()
            assert (frame.opcode, frame.close_code) == (CLOSE, ENDED)
            assert await kept.is_alive()
        await is_refused(people, key)
        assert (await people.ask("DELETE", SESSION, key)).status == 401
        # Another session of theirs is another matter.
        assert (await people.ask("GET", SESSION, other)).status == 200


async def test_session_of_a_byou_user_without_an_app(node: NodeProcess) -> None:
    async with tenant_with_app(node, "byou") as people:
        user = (await people.store.users.create(people.project, "", external_key="a")).id
        server = await people.project_key("byou")
        key = (await people.sign_in(server, userId=user, appId=None)).body["token"]
        assert (await people.ask("GET", SESSION, key)).body["appId"] == ""


async def test_node_session_has_access_of_its_device(node: NodeProcess) -> None:
    async with tenant_with_app(node, "email") as people:
        tenant = people
        owner = await tenant.user()
        device, other = [await tenant.device(await tenant.home(owner)) for _ in range(2)]
        _, key = await tenant.node_session(device.id)
        for method in ("GET", "DELETE"):
            assert (await tenant.ask(method, SESSION, key)).status == 403
            assert (await tenant.ask(method, SESSION, device.key)).status == 403
        account = (await tenant.ask("GET", "/auth", key)).body
        assert (account["type"], account["deviceId"]) == ("device", device.id)
        assert "expirationTime" in account
        assert (await tenant.put(f"/devices/{device.id}/event", key, {"eventType": "e"}))[0] == 204
        assert (await tenant.put(f"/devices/{other.id}/event", key, {"eventType": "e"}))[0] == 404
        async with await listen(tenant.url, f"/devices/{device.id}/command", key) as socket:
            assert (await tenant.put(f"/devices/{device.id}/command", owner.key, {"action": "go"}))[0] == 204
            assert (await socket.receive_json())["action"] == "go"
            # A rotated key takes what was opened with it along.
            await tenant.store.devices.rotate_key(people.project, device.id)
            frame = await socket.receive()
            assert (frame.opcode, frame.close_code) == (CLOSE, ENDED)
        await is_refused(tenant, key)


async def test_leased_session_is_in_use_until_the_last_lease_ends(node: NodeProcess) -> None:
    async with tenant_with_app(node, "email") as people:
        _, key, session_id = await signed_in(people)
        lease = people.store.sessions.lease
        async with lease(people.project, session_id):
            async with lease(people.project, session_id):
                assert_in_use(await people.ask("DELETE", SESSION, key))
            assert_in_use(await people.ask("DELETE", SESSION, key))
            assert (await people.ask("GET", SESSION, key)).status == 200
        assert (await people.ask("DELETE", SESSION, key)).status == 204
        # Nothing is left of the leases, and a session that is over cannot be leased.
        slot = people.slot
        assert not await people.redis.exists(slot.session_leases(session_id))


def assert_in_use(answer: Reply) -> None:
    assert (answer.status, answer.reason) == (409, "SESSION_IN_USE")
    assert answer.body["data"]["problem"]


async def test_lease_of_dead_holder_expires(node: NodeProcess) -> None:
    async with tenant_with_app(node, "email") as people:
        _, key, session_id = await signed_in(people)
        redis, leases = people.redis, people.slot.session_leases(session_id)
        async with people.store.sessions.lease(people.project, session_id):
            assert_in_use(await people.ask("DELETE", SESSION, key))
            assert 0 < await redis.pttl(leases) <= 30_000
            # Half a minute later, as its score has it.
            (lease,) = cast(list[bytes], await redis.zrange(leases, 0, -1))
            await redis.zincrby(leases, -30_000, lease)
            assert (await people.ask("DELETE", SESSION, key)).status == 204


async def test_account_and_its_session_do_not_both_end_by_request(node: NodeProcess) -> None:
    """Whoever comes second is told so: the deletion keeps the session, and needs it."""
    async with tenant_with_app(node, "email") as people:
        tenant = people
        for _ in range(25):
            user = await tenant.user()
            deleted, ended = await asyncio.gather(
                tenant.ask("DELETE", f"/users/{user.id}", user.key),
                tenant.ask("DELETE", SESSION, user.key),
            )
            assert deleted.status in (204, 401)
            assert (deleted.status == 204) is (ended.status != 204)
            assert ended.status in (204, 401, 404, 409)
            assert (await tenant.store.users.get(people.project, user.id) is None) is (deleted.status == 204)


async def test_session_that_ended_behind_the_key_is_not_found(node: NodeProcess) -> None:
    async with tenant_with_app(node, "email") as people:
        _, key, session_id = await signed_in(people)
        assert (await people.ask("GET", SESSION, key)).status == 200
        # As a node sees it that has looked at the key already: nothing was announced.
        await people.redis.hset(people.slot.session(session_id), "closed", "1")
        for method in ("GET", "DELETE"):
            answer = await people.ask(method, SESSION, key)
            assert (answer.status, answer.reason) == (404, "NOT_FOUND")


async def test_no_answer_has_the_key(node: NodeProcess) -> None:
    async with tenant_with_app(node, "email") as people:
        _, key, session_id = await signed_in(people)
        async with people.store.sessions.lease(people.project, session_id):
            answers = [await people.ask(method, SESSION, key) for method in ("GET", "DELETE", "PATCH")]
        assert [answer.status for answer in answers] == [200, 409, 405]
        for answer in answers:
            assert key.rsplit(".", 1)[1] not in str(answer)


async def with_key(tenant: Tenant, key: str) -> str:
    """The key of a session that this one makes."""
    parent = await tenant.store.sessions.of_token(key)
    assert parent is not None
    return (await tenant.session(parent.user_id, parent=parent))[1]


async def test_user_ends_the_other_sessions(tenant: Tenant) -> None:
    user = await tenant.user()
    others = [(await tenant.session(user.id))[1] for _ in range(3)]
    others += [await with_key(tenant, others[0]), await with_key(tenant, user.key)]
    assert (await tenant.ask("DELETE", "/userSessions", user.key)).status == 204
    asked = [(await tenant.ask("GET", "/userSession", key)).status for key in (*others, user.key)]
    assert asked == [401] * 5 + [200]
    assert (await tenant.ask("DELETE", "/userSessions?current=true", user.key)).status == 204
    assert (await tenant.ask("GET", "/userSession", user.key)).status == 401


async def test_child_sessions_end_with_all_others(tenant: Tenant) -> None:
    user = await tenant.user()
    made = await with_key(tenant, user.key)
    assert (await tenant.ask("DELETE", "/userSessions", made)).status == 204
    asked = [(await tenant.ask("GET", "/userSession", key)).status for key in (user.key, made)]
    assert asked == [401, 401]
