"""When somebody last logged in, and last tried in vain: true, and of no use to who guesses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from kit.accounts import EMAIL, PASSWORD, PHONE, TenantWithApp, reason, tenant_with_app
from kit.node import NodeProcess, private_node
from kit.redis_server import monitored

UNKNOWN = "nobody@example.com"


@pytest.fixture(scope="module")
def patient_node() -> Iterator[NodeProcess]:
    """A node without limits of attempts."""
    with private_node(account_attempts=0, unknown_network_attempts=0, address_attempts=0) as node:
        yield node


@pytest_asyncio.fixture
async def people(patient_node: NodeProcess) -> AsyncIterator[TenantWithApp]:
    async with tenant_with_app(patient_node, "email") as made:
        yield made


async def stored(people: TenantWithApp, user_id: int) -> Any:
    user = await people.store.users.get(people.project, user_id)
    assert user is not None
    return user


def now(people: TenantWithApp) -> int:
    return people.store.now_ms()


async def test_login_and_a_failed_one_are_noted_when_they_were(people: TenantWithApp) -> None:
    user = await people.member()
    assert (
        (await stored(people, user)).last_login_ms,
        (await stored(people, user)).last_failed_login_ms,
    ) == (
        0,
        0,
    )
    before = now(people)
    assert reason(await people.sign_in(email=EMAIL, password="wrong")) == "INCORRECT_PASSWORD"
    failed = await stored(people, user)
    assert before <= failed.last_failed_login_ms <= now(people)
    assert failed.last_login_ms == 0
    between = now(people)
    assert (await people.sign_in(email=EMAIL.upper(), password=PASSWORD)).status == 200
    both = await stored(people, user)
    assert between <= both.last_login_ms <= now(people)
    assert both.last_failed_login_ms == failed.last_failed_login_ms
    # It is the moment at which the session began.
    (session,) = await people.store.sessions.of_user(people.project, user)
    assert both.last_login_ms == session.started_ms


async def test_refused_login_is_noted_as_failed(people: TenantWithApp) -> None:
    """Also with the right password."""
    made = await people.store.users.create(people.project, "Ada", email=EMAIL, password=PASSWORD)
    assert reason(await people.sign_in(email=EMAIL, password=PASSWORD)) == "USER_UNVERIFIED"
    user = await stored(people, made.id)
    assert user.last_failed_login_ms > 0
    assert user.last_login_ms == 0


async def test_login_without_password_is_noted_too(patient_node: NodeProcess) -> None:
    async with tenant_with_app(patient_node, "phone") as people:
        made = await people.store.users.create(people.project, "Ada", phone=PHONE)
        assert reason(await people.sign_in(phoneNumber=PHONE, code="000000")) == "INVALID_AUTH_CODE"
        assert (await stored(people, made.id)).last_failed_login_ms > 0
        code = await people.store.verifications.issue_code(people.project, made.id, 60_000)
        assert (await people.sign_in(phoneNumber=PHONE, code=code)).status == 200
        assert (await stored(people, made.id)).last_login_ms > 0


async def test_login_of_unknown_user_notes_nothing(people: TenantWithApp) -> None:
    """Nor of who was only invited: they could not log in."""
    store, project = people.store, people.project
    keys = {name async for name in people.redis.scan_iter(f"*{{p{project}}}*")}
    for email in (UNKNOWN, "no address at all", ""):
        await people.sign_in(email=email, password="wrong")
    assert {name async for name in people.redis.scan_iter(f"*{{p{project}}}*")} == keys
    user = await people.member()
    await store.users.delete(project, user)
    await store.users.note_failed_login(project, user)
    assert await store.users.get_any(project, user) is None


async def test_failed_login_sends_same_commands_for_known_and_unknown_users(people: TenantWithApp) -> None:
    """What the clock may blur, MONITOR shows."""
    await people.member()
    await people.store.users.create(people.project, "none", email="without@example.com")

    async def commands(email: str) -> list[tuple[str, str]]:
        async with monitored(people.redis) as monitor:
            await people.sign_in(email=email, password="wrong")
            await people.redis.ping()
            seen: list[tuple[str, str]] = []
            async for command in monitor.listen():
                words = command["command"].split()
                if words[0] == "PING":
                    return seen
                # Not what a script does within: that is no trip. Nor when the relay looks at every outbox.
                if f"{{p{people.project}}}" not in command["command"] or words[0] == "XLEN":
                    continue
                if command["client_type"] != "lua":
                    seen.append((words[0], words[1] if words[0] == "EVALSHA" else ""))
            raise AssertionError("no PING")

    for email in (EMAIL, UNKNOWN):
        await people.sign_in(email=email, password="wrong")
    found = [await commands(email) for email in (EMAIL, UNKNOWN, "without@example.com")]
    assert found[0] == found[1] == found[2]
    assert len(found[0]) >= 4


async def test_times_of_many_logins_at_once_are_those_of_one(people: TenantWithApp) -> None:
    user = await people.member()
    opened = await asyncio.gather(*(people.session(user) for _ in range(20)))
    started = [session.started_ms for session, _ in opened]
    assert (await stored(people, user)).last_login_ms == max(started)
