"""How often somebody may try: limits by address and by account, on all nodes together."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from kit.accounts import EMAIL, PASSWORD, PHONE, TenantWithApp, reason, tenant_with_app
from kit.node import NodeProcess, eventually, private_node, running_node
from kit.tenant import Reply

LIMITS: dict[str, Any] = {
    "account_attempts": 3,
    "address_attempts": 6,
    "account_messages": 2,
    "address_messages": 4,
    "attempts_window_s": 60,
}


@pytest.fixture(scope="module")
def nodes() -> Iterator[tuple[NodeProcess, NodeProcess]]:
    """Two nodes on one Redis."""
    with ExitStack() as stack:
        first = stack.enter_context(private_node(**LIMITS))
        beside = first.data_dir.with_name("second")
        second = stack.enter_context(running_node(beside, redis_url=first.redis_url, **LIMITS))
        yield first, second


def refused(reply: Reply) -> str:
    """The limit that a 429 names, with its value as `most`; its Retry-After lies in the window."""
    assert reply.status == 429, reply
    assert 0 < int(reply.headers["Retry-After"]) <= LIMITS["attempts_window_s"]
    assert reply.body["reason"] == "TOO_MANY_REQUESTS"
    limit = str(reply.body["data"]["limit"])
    assert reply.body["data"] == {"limit": limit, "most": LIMITS[limit]}
    return limit


async def test_attempts_at_account_are_limited(nodes: tuple[NodeProcess, NodeProcess]) -> None:
    async with tenant_with_app(nodes[0], "email") as people:
        await people.member()
        await people.member("bob@example.com")
        for _ in range(LIMITS["account_attempts"]):
            assert reason(await people.sign_in(email=EMAIL, password="wrong")) == "INCORRECT_PASSWORD"
        assert refused(await people.sign_in(email=EMAIL.upper(), password=PASSWORD)) == "account_attempts"
        assert (await people.sign_in(email="bob@example.com", password=PASSWORD)).status == 200
        # As long as it counts, nobody is told whether the address is known.
        for _ in range(LIMITS["account_attempts"]):
            await people.sign_in(email="nobody@example.com", password="wrong")
        limit = refused(await people.sign_in(email="nobody@example.com", password="wrong"))
        assert limit in ("account_attempts", "address_attempts")


async def test_attempts_at_once_are_limited_alike(nodes: tuple[NodeProcess, NodeProcess]) -> None:
    async with tenant_with_app(nodes[0], "email") as people, nodes[1].client() as elsewhere:
        await people.member()
        other = replace(people, node=nodes[1], url=nodes[1].url, http=elsewhere)
        replies = await asyncio.gather(
            *(each.sign_in(email=EMAIL, password="wrong") for each in (people, other) for _ in range(6))
        )
        statuses = sorted(reply.status for reply in replies)
        assert statuses == [403] * LIMITS["account_attempts"] + [429] * 9


async def test_attempts_of_address_are_limited(nodes: tuple[NodeProcess, NodeProcess]) -> None:
    async with tenant_with_app(nodes[0], "email") as people:
        for number in range(LIMITS["address_attempts"]):
            await people.sign_in(email=f"{number}@example.com", password="wrong")
        assert refused(await people.sign_in(email=EMAIL, password="wrong")) == "address_attempts"
        # Links that were mailed to people of the same network go on working.
        await people.member()
        await people.start("passwordReset/start", email=EMAIL)
        form = {"token": await people.token(), "newPassword": PASSWORD}
        assert (await people.post("/auth/user/passwordReset", **form)).status == 200


async def test_attempts_at_tokens_are_limited(nodes: tuple[NodeProcess, NodeProcess]) -> None:
    async with tenant_with_app(nodes[0], "email") as people:
        for number in range(LIMITS["address_attempts"]):
            path, more = (
                ("/auth/user/emailVerification", {}),
                ("/auth/user/passwordReset", {"newPassword": PASSWORD}),
            )[number % 2]
            assert reason(await people.post(path, token=a_token(people), **more)) == "INVALID_TOKEN"
        assert refused(await people.post("/auth/user/emailVerification", token=a_token(people))) == (
            "address_attempts"
        )
        reset = await people.post("/auth/user/passwordReset", token=a_token(people), newPassword=PASSWORD)
        assert refused(reset) == "address_attempts"
        samples = await people.node.metrics()
        assert samples['refused_total{limit="address_attempts"}'] >= 2


def a_token(people: TenantWithApp) -> str:
    """One that nobody was sent."""
    return f"v1.{people.project}.{'A' * 43}"


async def test_right_password_is_never_refused(nodes: tuple[NodeProcess, NodeProcess]) -> None:
    async with tenant_with_app(nodes[0], "email") as people:
        await people.member()
        for _ in range(LIMITS["address_attempts"] + 1):
            assert (await people.sign_in(email=EMAIL, password=PASSWORD)).status == 200


async def test_attempts_at_codes_are_limited(nodes: tuple[NodeProcess, NodeProcess]) -> None:
    async with tenant_with_app(nodes[0], "phone") as people:
        await people.register(name="Ada", phoneNumber=PHONE)
        for _ in range(LIMITS["account_attempts"]):
            assert reason(await people.sign_in(phoneNumber=PHONE, code="x")) == "INVALID_AUTH_CODE"
        assert (
            refused(await people.sign_in(phoneNumber=PHONE, code=await people.code())) == "account_attempts"
        )


@pytest.mark.parametrize("what", ["emailVerification/start", "passwordReset/start"])
async def test_address_is_written_to_so_often(nodes: tuple[NodeProcess, NodeProcess], what: str) -> None:
    async with tenant_with_app(nodes[0], "email") as people:
        await people.member()
        for email in (EMAIL, "nobody@example.com"):
            for _ in range(LIMITS["account_messages"]):
                assert (await people.start(what, email=email)).status == 200
            limit = refused(await people.start(what, email=email))
            assert limit == ("account_messages" if email == EMAIL else "address_messages")


async def test_number_is_written_to_so_often(nodes: tuple[NodeProcess, NodeProcess]) -> None:
    async with tenant_with_app(nodes[0], "phone") as people:
        assert (await people.register(name="Ada", phoneNumber=PHONE)).status == 201
        assert (await people.start("sms", phoneNumber=PHONE)).status == 200
        assert refused(await people.start("sms", phoneNumber=PHONE)) == "account_messages"
        assert len(await people.messages()) == LIMITS["account_messages"]


async def test_registrations_that_are_refused_use_up_no_messages(
    nodes: tuple[NodeProcess, NodeProcess],
) -> None:
    async with tenant_with_app(nodes[0], "email") as people:
        await people.member()
        for _ in range(LIMITS["account_messages"] + 1):
            short = await people.register(name="Bob", email="bob@example.com", password="short")
            assert reason(short) == "PASSWORD_TOO_SHORT"
            nameless = await people.register(name="x" * 257, email="bob@example.com", password=PASSWORD)
            assert nameless.body["data"]["field"] == "name"
            assert reason(await people.register(name="Eve", email=EMAIL, password=PASSWORD)) == "EMAIL_IN_USE"
        made = await people.register(name="Bob", email="bob@example.com", password=PASSWORD)
        assert made.status == 201
        # Whose address it is can still ask for a link.
        assert (await people.start("passwordReset/start", email=EMAIL)).status == 200
        assert len(await people.messages(EMAIL)) == 1
        # But who has an account is not told as often as one likes.
        for _ in range(LIMITS["address_attempts"] - LIMITS["account_messages"] - 1):
            await people.register(name="Eve", email=EMAIL, password=PASSWORD)
        assert (
            refused(await people.register(name="Eve", email=EMAIL, password=PASSWORD)) == "address_attempts"
        )
    async with tenant_with_app(nodes[0], "phone") as people:
        taken = "+14155550199"
        await people.store.users.create(people.project, "Ada", phone=taken, verified=True)
        for _ in range(LIMITS["account_messages"] + 1):
            assert reason(await people.register(name="Eve", phoneNumber=taken)) == "USER_EXISTS"
            nameless = await people.register(name="x" * 257, phoneNumber=PHONE)
            assert nameless.body["data"]["field"] == "name"
        assert (await people.start("sms", phoneNumber=taken)).status == 200
        assert (await people.register(name="Ada", phoneNumber=PHONE)).status == 201


async def test_address_registers_so_many(nodes: tuple[NodeProcess, NodeProcess]) -> None:
    async with tenant_with_app(nodes[0], "phone") as people:
        for number in range(LIMITS["address_messages"]):
            made = await people.register(name="Ada", phoneNumber=f"+1415555010{number}")
            assert made.status == 201
        assert refused(await people.register(name="Ada", phoneNumber=PHONE)) == "address_messages"


async def test_project_that_brings_its_own_users_is_not_limited(
    nodes: tuple[NodeProcess, NodeProcess],
) -> None:
    async with tenant_with_app(nodes[0], "byou") as people:
        key, user = await people.project_key("byou"), None
        for _ in range(LIMITS["address_attempts"] + 1):
            user = (await people.ask("POST", "/users", key, {"projectId": people.project})).body["id"]
            assert (await people.sign_in(key, userId=user)).status == 200


async def test_limits_end_with_their_window() -> None:
    with private_node(**{**LIMITS, "attempts_window_s": 1}) as node:
        async with tenant_with_app(node, "email") as people:
            await people.member()

            async def refuses() -> bool:
                return (await people.start("passwordReset/start", email=EMAIL)).status == 429

            async def admits() -> bool:
                return (await people.start("passwordReset/start", email=EMAIL)).status == 200

            await eventually(refuses)
            await eventually(admits)
            # Nothing is left of it, however many addresses were tried.
            await eventually(lambda: nothing_left(people.redis))


async def nothing_left(redis: Redis) -> bool:
    return not [name async for name in redis.scan_iter("*:attempts:*")]


async def test_address_is_invited_so_often_and_a_member_all_the_same(
    nodes: tuple[NodeProcess, NodeProcess],
) -> None:
    async with tenant_with_app(nodes[0], "email") as people:
        owner = await people.member()
        key, store = await people.key_of(owner), people.store
        members = f"/homes/{(await store.homes.create(people.project, 'home', owner)).id}/members"
        for _ in range(LIMITS["account_messages"] + 1):
            added = await people.ask("POST", members, key, {"email": "bob@example.com"})
            assert added.status == 201
            # Of this one nobody is told, and nothing is counted.
            again = await people.ask("POST", members, key, {"email": "bob@example.com"})
            assert again.reason == "MEMBER_EXISTS"
            removed = await people.ask("DELETE", f"{members}/{added.body['userId']}", key)
            assert removed.status == 204
        assert len(await people.messages("bob@example.com")) == LIMITS["account_messages"]
        # Who is invited may still ask for messages of their own.
        registered = await people.register(name="Bob", email="bob@example.com", password=PASSWORD)
        assert registered.status == 201
