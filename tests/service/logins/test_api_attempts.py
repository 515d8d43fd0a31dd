"""How often somebody may try: limits by address and by account, on all nodes together."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from redis.asyncio import Redis

from homewire.projects.models import AccountSystem, KeyScope
from kit.accounts import EMAIL, PASSWORD, PHONE, Desk, desk_of, reason
from kit.node import NodeProcess, eventually, private_node, running_node
from kit.tenant import Reply, Tenant

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
    """The limit that a 429 names; its Retry-After lies in the window."""
    assert reply.status == 429, reply
    assert 0 < int(reply.headers["Retry-After"]) <= LIMITS["attempts_window_s"]
    assert reply.body["reason"] == "TOO_MANY_REQUESTS"
    return str(reply.body["data"]["limit"])


async def test_an_account_can_be_guessed_at_so_often(nodes: tuple[NodeProcess, NodeProcess]) -> None:
    async with desk_of(nodes[0], AccountSystem.EMAIL) as desk:
        await desk.member()
        await desk.member("bob@example.com")
        for _ in range(LIMITS["account_attempts"]):
            assert reason(await desk.sign_in(email=EMAIL, password="wrong")) == "INCORRECT_PASSWORD"
        assert refused(await desk.sign_in(email=EMAIL.upper(), password=PASSWORD)) == "account_attempts"
        assert (await desk.sign_in(email="bob@example.com", password=PASSWORD)).status == 200
        # As long as it counts, nobody is told whether the address is known.
        for _ in range(LIMITS["account_attempts"]):
            await desk.sign_in(email="nobody@example.com", password="wrong")
        limit = refused(await desk.sign_in(email="nobody@example.com", password="wrong"))
        assert limit in ("account_attempts", "address_attempts")


async def test_many_guesses_at_once_are_no_more(nodes: tuple[NodeProcess, NodeProcess]) -> None:
    async with desk_of(nodes[0], AccountSystem.EMAIL) as desk, nodes[1].client() as elsewhere:
        await desk.member()
        other = Desk(nodes[1], Tenant(desk.tenant.store, desk.tenant.redis, nodes[1].url, desk.project, "", 0,
                                      elsewhere))  # fmt: skip
        replies = await asyncio.gather(
            *(each.sign_in(email=EMAIL, password="wrong") for each in (desk, other) for _ in range(6))
        )
        statuses = sorted(reply.status for reply in replies)
        assert statuses == [403] * LIMITS["account_attempts"] + [429] * 9


async def test_an_address_can_guess_so_often(nodes: tuple[NodeProcess, NodeProcess]) -> None:
    async with desk_of(nodes[0], AccountSystem.EMAIL) as desk:
        for number in range(LIMITS["address_attempts"]):
            await desk.sign_in(email=f"{number}@example.com", password="wrong")
        assert refused(await desk.sign_in(email=EMAIL, password="wrong")) == "address_attempts"
        # Links that were mailed to people of the same network go on working.
        await desk.member()
        await desk.start("passwordReset/start", email=EMAIL)
        form = {"token": await desk.token(), "newPassword": PASSWORD}
        assert (await desk.post("/auth/user/passwordReset", **form)).status == 200


async def test_tokens_can_be_guessed_so_often(nodes: tuple[NodeProcess, NodeProcess]) -> None:
    async with desk_of(nodes[0], AccountSystem.EMAIL) as desk:
        for number in range(LIMITS["address_attempts"]):
            path, more = (
                ("/auth/user/emailVerification", {}),
                ("/auth/user/passwordReset", {"newPassword": PASSWORD}),
            )[number % 2]
            assert reason(await desk.post(path, token=a_token(desk), **more)) == "INVALID_TOKEN"
        assert refused(await desk.post("/auth/user/emailVerification", token=a_token(desk))) == (
            "address_attempts"
        )
        reset = await desk.post("/auth/user/passwordReset", token=a_token(desk), newPassword=PASSWORD)
        assert refused(reset) == "address_attempts"
        samples = await desk.node.metrics()
        assert samples['refused_total{limit="address_attempts"}'] >= 2


def a_token(desk: Desk) -> str:
    """One that nobody was sent."""
    return f"v1.{desk.project}.{'A' * 43}"


async def test_who_knows_the_password_is_never_refused(nodes: tuple[NodeProcess, NodeProcess]) -> None:
    async with desk_of(nodes[0], AccountSystem.EMAIL) as desk:
        await desk.member()
        for _ in range(LIMITS["address_attempts"] + 1):
            assert (await desk.sign_in(email=EMAIL, password=PASSWORD)).status == 200


async def test_codes_can_be_guessed_so_often(nodes: tuple[NodeProcess, NodeProcess]) -> None:
    async with desk_of(nodes[0], AccountSystem.PHONE) as desk:
        await desk.register(name="Ada", phoneNumber=PHONE)
        for _ in range(LIMITS["account_attempts"]):
            assert reason(await desk.sign_in(phoneNumber=PHONE, code="x")) == "INVALID_AUTH_CODE"
        assert refused(await desk.sign_in(phoneNumber=PHONE, code=await desk.code())) == "account_attempts"


@pytest.mark.parametrize("what", ["emailVerification/start", "passwordReset/start"])
async def test_an_address_is_written_to_so_often(nodes: tuple[NodeProcess, NodeProcess], what: str) -> None:
    async with desk_of(nodes[0], AccountSystem.EMAIL) as desk:
        await desk.member()
        for email in (EMAIL, "nobody@example.com"):
            for _ in range(LIMITS["account_messages"]):
                assert (await desk.start(what, email=email)).status == 200
            limit = refused(await desk.start(what, email=email))
            assert limit == ("account_messages" if email == EMAIL else "address_messages")


async def test_a_number_is_written_to_so_often(nodes: tuple[NodeProcess, NodeProcess]) -> None:
    async with desk_of(nodes[0], AccountSystem.PHONE) as desk:
        assert (await desk.register(name="Ada", phoneNumber=PHONE)).status == 201
        assert (await desk.start("sms", phoneNumber=PHONE)).status == 200
        assert refused(await desk.start("sms", phoneNumber=PHONE)) == "account_messages"
        assert len(await desk.messages()) == LIMITS["account_messages"]


async def test_registrations_that_are_refused_use_up_no_messages(
    nodes: tuple[NodeProcess, NodeProcess],
) -> None:
    async with desk_of(nodes[0], AccountSystem.EMAIL) as desk:
        await desk.member()
        for _ in range(LIMITS["account_messages"] + 1):
            short = await desk.register(name="Bob", email="bob@example.com", password="short")
            assert reason(short) == "PASSWORD_TOO_SHORT"
            nameless = await desk.register(name="x" * 257, email="bob@example.com", password=PASSWORD)
            assert nameless.body["data"]["field"] == "name"
            assert reason(await desk.register(name="Eve", email=EMAIL, password=PASSWORD)) == "EMAIL_IN_USE"
        made = await desk.register(name="Bob", email="bob@example.com", password=PASSWORD)
        assert made.status == 201
        # Whose address it is can still ask for a link.
        assert (await desk.start("passwordReset/start", email=EMAIL)).status == 200
        assert len(await desk.messages(EMAIL)) == 1
        # But who has an account is not told as often as one likes.
        for _ in range(LIMITS["address_attempts"] - LIMITS["account_messages"] - 1):
            await desk.register(name="Eve", email=EMAIL, password=PASSWORD)
        assert refused(await desk.register(name="Eve", email=EMAIL, password=PASSWORD)) == "address_attempts"
    async with desk_of(nodes[0], AccountSystem.PHONE) as desk:
        taken = "+14155550199"
        await desk.tenant.store.users.create(desk.project, "Ada", phone=taken, verified=True)
        for _ in range(LIMITS["account_messages"] + 1):
            assert reason(await desk.register(name="Eve", phoneNumber=taken)) == "USER_EXISTS"
            nameless = await desk.register(name="x" * 257, phoneNumber=PHONE)
            assert nameless.body["data"]["field"] == "name"
        assert (await desk.start("sms", phoneNumber=taken)).status == 200
        assert (await desk.register(name="Ada", phoneNumber=PHONE)).status == 201


async def test_an_address_registers_so_many(nodes: tuple[NodeProcess, NodeProcess]) -> None:
    async with desk_of(nodes[0], AccountSystem.PHONE) as desk:
        for number in range(LIMITS["address_messages"]):
            made = await desk.register(name="Ada", phoneNumber=f"+1415555010{number}")
            assert made.status == 201
        assert refused(await desk.register(name="Ada", phoneNumber=PHONE)) == "address_messages"


async def test_a_project_that_brings_its_own_users_is_not_limited(
    nodes: tuple[NodeProcess, NodeProcess],
) -> None:
    async with desk_of(nodes[0], AccountSystem.BYOU) as desk:
        key, user = await desk.project_key(KeyScope.BYOU), None
        for _ in range(LIMITS["address_attempts"] + 1):
            user = (await desk.tenant.ask("POST", "/users", key, {"projectId": desk.project})).body["id"]
            assert (await desk.sign_in(key, userId=user)).status == 200


async def test_limits_end_with_their_window() -> None:
    with private_node(**{**LIMITS, "attempts_window_s": 1}) as node:
        async with desk_of(node, AccountSystem.EMAIL) as desk:
            await desk.member()

            async def refuses() -> bool:
                return (await desk.start("passwordReset/start", email=EMAIL)).status == 429

            async def admits() -> bool:
                return (await desk.start("passwordReset/start", email=EMAIL)).status == 200

            await eventually(refuses)
            await eventually(admits)
            # Nothing is left of it, however many addresses were tried.
            await eventually(lambda: nothing_left(desk.tenant.redis))


async def nothing_left(redis: Redis) -> bool:
    return not [name async for name in redis.scan_iter("*:attempts:*")]


async def test_an_address_is_invited_so_often_and_a_member_all_the_same(
    nodes: tuple[NodeProcess, NodeProcess],
) -> None:
    async with desk_of(nodes[0], AccountSystem.EMAIL) as desk:
        owner = await desk.member()
        key, store = await desk.key(owner), desk.tenant.store
        members = f"/homes/{(await store.homes.create(desk.project, 'home', owner)).id}/members"
        for _ in range(LIMITS["account_messages"] + 1):
            added = await desk.tenant.ask("POST", members, key, {"email": "bob@example.com"})
            assert added.status == 201
            # Of this one nobody is told, and nothing is counted.
            again = await desk.tenant.ask("POST", members, key, {"email": "bob@example.com"})
            assert again.reason == "MEMBER_EXISTS"
            removed = await desk.tenant.ask("DELETE", f"{members}/{added.body['userId']}", key)
            assert removed.status == 204
        assert len(await desk.messages("bob@example.com")) == LIMITS["account_messages"]
        # Who is invited may still ask for messages of their own.
        registered = await desk.register(name="Bob", email="bob@example.com", password=PASSWORD)
        assert registered.status == 201
