"""A stranger who guesses locks out strangers: by network first, with delays that grow; and what SMS cost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from kit.accounts import APP, EMAIL, PASSWORD, PHONE, TenantWithApp, field, reason, tenant_with_app
from kit.node import NodeProcess, private_node
from kit.tenant import Reply

FIRST_S, LONGEST_S = 100, 1000
LIMITS: dict[str, Any] = {
    "trusted_proxies": "127.0.0.0/8",
    "account_attempts": 2,
    "unknown_network_attempts": 4,
    "attempts_delay_s": FIRST_S,
    "attempts_delay_max_s": LONGEST_S,
    "account_messages": 2,
    "recipient_messages": 5,
    "project_sms_per_day": 3,
}
HOME, HOTEL = "192.0.2.7", "198.51.100.9"


@pytest.fixture(scope="module")
def behind_proxy() -> Iterator[NodeProcess]:
    """A node that believes what the tests say about the addresses of their clients."""
    with private_node(**LIMITS) as node:
        yield node


@pytest_asyncio.fixture
async def people(behind_proxy: NodeProcess) -> AsyncIterator[TenantWithApp]:
    async with tenant_with_app(behind_proxy, "email") as made:
        await made.member()
        yield made


async def post(people: TenantWithApp, address: str, path: str, **form: Any) -> Reply:
    """A form from a client's address."""
    given = {"projectId": people.project, **form}
    headers = {"X-Forwarded-For": address}
    async with people.http.post(path, data=given, headers=headers) as answer:
        content = await answer.read()
        body = await answer.json() if content else None
        return Reply(answer.status, body, answer.headers)


async def sign_in(people: TenantWithApp, address: str, password: str = PASSWORD) -> Reply:
    return await post(people, address, "/auth/user", appId=APP, email=EMAIL, password=password)


async def attempt(people: TenantWithApp, address: str, times: int) -> None:
    for _ in range(times):
        assert reason(await sign_in(people, address, "wrong")) == "INCORRECT_PASSWORD"


def limited(reply: Reply) -> tuple[str, int]:
    """The limit that a 429 names, and how long to wait."""
    assert reply.status == 429, reply
    return reply.body["data"]["limit"], int(reply.headers["Retry-After"])


async def pass_time(people: TenantWithApp, seconds: float) -> None:
    """As if what was wrong had been so much longer ago."""
    redis = people.redis
    async for name in redis.scan_iter(f"*{{p{people.project}}}:attempts:*"):
        if await redis.type(name) == b"hash":
            await redis.hincrby(name, "last", -round(seconds * 1000))


async def test_attempts_of_stranger_do_not_block_user(people: TenantWithApp) -> None:
    # The owner was at home lately.
    assert (await sign_in(people, HOME)).status == 200
    for stranger in ("203.0.113.1", "203.1.113.1"):
        await attempt(people, stranger, LIMITS["account_attempts"])
        assert limited(await sign_in(people, stranger))[0] in ("account_attempts", "unknown_network_attempts")
    # All others together have used up theirs; who is known has not.
    assert limited(await sign_in(people, HOTEL))[0] == "unknown_network_attempts"
    assert (await sign_in(people, HOME)).status == 200
    assert (await sign_in(people, "192.0.2.200")).status == 200


async def test_owner_gets_in_from_anywhere_by_the_reset_link(people: TenantWithApp) -> None:
    for stranger in ("203.0.113.1", "203.1.113.1"):
        await attempt(people, stranger, LIMITS["account_attempts"])
        # Nor do messages that a stranger asks for use up the owner's.
        for _ in range(LIMITS["account_messages"]):
            asked = await post(people, stranger, "/auth/user/passwordReset/start", email=EMAIL)
            assert asked.status == 200
        refused = await post(people, stranger, "/auth/user/passwordReset/start", email=EMAIL)
        assert limited(refused)[0] == "account_messages"
    assert limited(await sign_in(people, HOTEL))[0] == "unknown_network_attempts"
    assert (await post(people, HOTEL, "/auth/user/passwordReset/start", email=EMAIL)).status == 200
    form = {"token": await people.token(), "newPassword": "staple battery"}
    assert (await post(people, HOTEL, "/auth/user/passwordReset", **form)).status == 200
    assert (await sign_in(people, HOTEL, "staple battery")).status == 200
    # An address is written to only so often, though.
    fourth = await post(people, "203.2.113.1", "/auth/user/passwordReset/start", email=EMAIL)
    assert limited(fourth)[0] == "recipient_messages"


async def test_delays_grow_and_end_with_right_attempt(people: TenantWithApp) -> None:
    assert (await sign_in(people, HOME)).status == 200
    await attempt(people, HOME, LIMITS["account_attempts"])
    for delay in (FIRST_S, 2 * FIRST_S, 4 * FIRST_S, 8 * FIRST_S, LONGEST_S, LONGEST_S):
        limit, wait = limited(await sign_in(people, HOME))
        assert limit == "account_attempts"
        # Of what had passed when it was asked.
        assert delay / 2 < wait <= delay
        await pass_time(people, delay)
        # One more, and no second one beside it.
        await attempt(people, HOME, 1)
    await pass_time(people, LONGEST_S)
    assert (await sign_in(people, HOME)).status == 200
    await attempt(people, HOME, LIMITS["account_attempts"])


async def test_there_are_never_more_than_a_hundred_in_a_row(behind_proxy: NodeProcess) -> None:
    async with tenant_with_app(behind_proxy, "phone") as people:
        user = await people.store.users.create(people.project, "Ada", phone=PHONE, verified=True)
        issue = people.store.verifications.issue_code

        async def sign_in_with(code: str, address: str) -> Reply:
            return await post(people, address, "/auth/user", appId=APP, phoneNumber=PHONE, code=code)

        assert (await sign_in_with(await issue(people.project, user.id, 60_000), HOME)).status == 200
        failed = await sign_in_with("x", HOTEL)
        assert reason(failed) == "INVALID_AUTH_CODE"
        redis = people.redis
        async for name in redis.scan_iter(f"*{{p{people.project}}}:attempts:unknown_network_attempts:*"):
            if await redis.type(name) == b"hash":
                await redis.hset(name, "n", "100")
        await pass_time(people, 10 * LONGEST_S)
        code = await issue(people.project, user.id, 60_000)
        # However long ago the last one was, and from wherever but where the owner is known.
        for stranger in (HOTEL, "203.0.113.1"):
            limit, wait = limited(await sign_in_with(code, stranger))
            assert limit == "unknown_network_attempts"
            assert wait > LONGEST_S
        assert (await sign_in_with(code, HOME)).status == 200
        assert (await people.node.metrics())['refused_total{limit="unknown_network_attempts"}'] >= 2


async def test_project_sends_so_many_sms_a_day(behind_proxy: NodeProcess) -> None:
    async with (
        tenant_with_app(behind_proxy, "phone") as people,
        tenant_with_app(behind_proxy, "phone") as other,
    ):
        for number in range(LIMITS["project_sms_per_day"]):
            assert (await people.register(name="Ada", phoneNumber=f"+1415555010{number}")).status == 201
        limit, wait = limited(await people.register(name="Ada", phoneNumber=PHONE))
        assert (limit, wait > 3600) == ("project_sms_per_day", True)
        assert limited(await people.start("sms", phoneNumber="+14155550100"))[0] == "project_sms_per_day"
        assert len(await people.messages()) == LIMITS["project_sms_per_day"]
        assert (await other.register(name="Ada", phoneNumber=PHONE)).status == 201
        # Nor for a code to a new number.
        user = await people.store.users.create(people.project, "Bo", phone="+14155550111", verified=True)
        path, key = f"/users/{user.id}/addressChange/start", await people.key_of(user.id)
        changing = await people.ask("POST", path, key, {"phoneNumber": PHONE})
        assert limited(changing)[0] == "project_sms_per_day"


async def test_sms_go_to_the_countries_of_the_project(behind_proxy: NodeProcess) -> None:
    async with tenant_with_app(behind_proxy, "phone") as people:
        satellite, german = "+881612345678", "+4915123456789"
        refused = await people.register(name="Eve", phoneNumber=satellite)
        assert (reason(refused), field(refused)) == ("INVALID_PHONE_NUMBER", "phoneNumber")
        assert field(await people.start("sms", phoneNumber=satellite)) == "phoneNumber"
        shown = await people.node.cli(
            "project", "set", "--project", people.project, "--sms-country-codes", "+49, 43"
        )
        assert shown["smsCountryCodes"] == "43,49"
        assert reason(await people.register(name="Ada", phoneNumber=PHONE)) == "INVALID_PHONE_NUMBER"
        assert await people.messages() == []
        assert (await people.register(name="Ada", phoneNumber=german)).status == 201
        reset = await people.node.cli(
            "project", "set", "--project", people.project, "--sms-country-codes", ""
        )
        assert reset["smsCountryCodes"] is None
        assert (await people.register(name="Ada", phoneNumber=PHONE)).status == 201
