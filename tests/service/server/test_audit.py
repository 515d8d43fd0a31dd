"""The audit trail of a node that logs everything: who did what to whose access, and not one secret."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import orjson
import pytest
import pytest_asyncio

from kit.accounts import EMAIL, PASSWORD, TenantWithApp, tenant_with_app
from kit.client import Refused, listen
from kit.node import NodeProcess, eventually, private_node

WRONG = "wrong battery staple"
NEW = "another staple battery"


@pytest.fixture(scope="module")
def talkative() -> Iterator[NodeProcess]:
    with private_node(log_level="debug") as node:
        yield node


@pytest_asyncio.fixture
async def people(talkative: NodeProcess) -> AsyncIterator[TenantWithApp]:
    async with tenant_with_app(talkative, "email") as made:
        yield made


async def trail(people: TenantWithApp, operation: str, outcome: str) -> dict[str, Any]:
    """The newest line of the trail with this operation and outcome, once it is written."""
    found: list[dict[str, Any]] = []

    async def is_written() -> bool:
        lines = [line for line in people.node.log.read_bytes().splitlines() if b'"audit"' in line]
        parsed = [orjson.loads(line) for line in lines]
        found[:] = [
            each
            for each in parsed
            if each["event"] == "audit" and (each["operation"], each["outcome"]) == (operation, outcome)
        ]
        return bool(found)

    await eventually(is_written)
    return found[-1]


async def logins(people: TenantWithApp, outcome: str) -> float:
    return (await people.node.metrics()).get(f'logins_total{{outcome="{outcome}"}}', 0)


async def test_logins_leave_a_line_and_are_counted_by_outcome(people: TenantWithApp) -> None:
    user = await people.member()
    right, wrong = await logins(people, "ok"), await logins(people, "INCORRECT_PASSWORD")
    assert (await people.sign_in(email=EMAIL, password=PASSWORD)).status == 200
    line = await trail(people, "authenticateUser", "ok")
    assert (line["project"], line["user"], line["address"]) == (people.project, user, "127.0.0.1")
    assert line["session"]
    assert (await people.sign_in(email=EMAIL, password=WRONG)).status == 403
    assert (await trail(people, "authenticateUser", "INCORRECT_PASSWORD"))["address"] == "127.0.0.1"
    assert await logins(people, "ok") == right + 1
    assert await logins(people, "INCORRECT_PASSWORD") == wrong + 1


async def test_audit_of_access_changes_names_caller_and_subject(people: TenantWithApp) -> None:
    admin = await people.project_key("admin")
    user = await people.member()
    key = await people.key_of(user)
    home = await people.store.homes.create(people.project, "home", user)
    asked = {"email": "new@example.com"}
    added = await people.ask("POST", f"/homes/{home.id}/members", key, asked)
    assert added.status == 201
    line = await trail(people, "addHomeMember", "ok")
    assert (line["caller"], line["project"], line["homeId"]) == (f"user {user}", people.project, str(home.id))
    refused = await people.ask("PATCH", f"/users/{user}", admin, {"name": "Eve"})
    assert refused.status == 403
    line = await trail(people, "updateUser", "PERMISSION_DENIED")
    assert line["caller"] == "project key key"


async def test_values_and_questions_leave_no_line(people: TenantWithApp) -> None:
    user = await people.member()
    key = await people.key_of(user)
    home = await people.store.homes.create(people.project, "home", user)
    asked: dict[str, Any] = {"value": 1}
    assert (await people.ask("PUT", f"/homes/{home.id}/kv/a", key, asked)).status == 204
    assert (await people.ask("GET", f"/homes/{home.id}", key)).status == 200
    assert (await people.ask("PATCH", f"/homes/{home.id}", key, {"name": "h"})).status == 204
    await trail(people, "updateHome", "ok")
    logged = people.node.log.read_text()
    assert "putHomeKeyValuePair" not in logged
    assert "getHome" not in logged


async def test_refusals_are_counted_by_reason(people: TenantWithApp) -> None:
    name = 'refusals_total{reason="AUTHORIZATION_REQUIRED"}'
    before = (await people.node.metrics()).get(name, 0)
    assert (await people.ask("GET", "/homes", "v1.1.dead")).status == 401
    with pytest.raises(Refused):
        await listen(people.node.url, "/userSession/websocket", "v1.1.dead")
    assert (await people.node.metrics())[name] == before + 2


async def test_flood_of_attempts_leaves_no_line_for_each(people: TenantWithApp) -> None:
    await people.member()
    # At once: each refusal is answered a second later.
    await asyncio.gather(*(people.sign_in(email=EMAIL, password=WRONG) for _ in range(60)))
    await trail(people, "authenticateUser", "TOO_MANY_REQUESTS")
    lines = [line for line in people.node.log.read_text().splitlines() if "TOO_MANY_REQUESTS" in line]
    times = {orjson.loads(line)["timestamp"][:19] for line in lines}
    # One a second by a clock of its own: two may fall into one second of the wall clock.
    assert len(lines) <= 2 * len(times)


async def test_no_secret_reaches_a_log_at_debug_level(people: TenantWithApp) -> None:
    tenant = people
    project_key = await people.project_key("admin", "read")
    secrets = [PASSWORD, WRONG, NEW, project_key, tenant.key]
    assert (await people.register(email=EMAIL, password=PASSWORD, name="Ada")).status == 201
    secrets.append(await people.token())
    assert (await people.post("/auth/user/emailVerification", token=secrets[-1])).status == 200
    signed_in = await people.sign_in(email=EMAIL, password=PASSWORD)
    secrets.append(signed_in.body["token"])
    key, user = signed_in.body["token"], signed_in.body["userId"]
    await people.sign_in(email=EMAIL, password=WRONG)
    await people.start("passwordReset/start", email=EMAIL)
    reset = await people.token()
    secrets.append(reset)
    login_token = await tenant.ask("POST", f"/users/{user}/loginToken", project_key)
    secrets.append(login_token.body["token"])
    home = await tenant.ask("POST", "/homes", key, {"name": "home"})
    device = await tenant.device(home.body["id"])
    secrets.append(device.key)
    # Where a key does not belong: in paths, queries, headers and bodies that are refused.
    for secret in secrets:
        for path in (f"/homes/{secret}", f"/homes?userId={secret}", f"/sessions/{secret}", f"/{secret}"):
            await tenant.ask("DELETE", path.replace(" ", "%20"), key)
        await tenant.ask("PATCH", f"/users/{user}", key, {"name": [secret]})
        await tenant.ask("PATCH", f"/users/{user}", None, {"password": secret})
        await tenant.ask("POST", "/auth/user", None, {"token": secret, "email": secret})
        with pytest.raises(Refused):
            await listen(people.node.url, f"/devices/1/command?authToken={secret.replace(' ', '%20')}", None)
    assert (await people.post("/auth/user/passwordReset", token=reset, newPassword=NEW)).status in (
        200,
        204,
    )
    assert (await people.sign_in(email=EMAIL, password=NEW)).status == 200
    await trail(people, "resetPassword", "ok")
    logged = people.node.logged()
    assert [number for number, secret in enumerate(secrets) if secret in logged] == []
