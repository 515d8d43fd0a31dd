"""Sessions with NData (spec 003): lists, single sessions, their end; who sees which."""

from __future__ import annotations

from typing import Any

import pytest

from kit.accounts import TenantWithApp
from kit.clock import timestamp
from kit.node import NodeProcess
from kit.tenant import ACCOUNT_SYSTEMS, Account, Reply, Session, Tenant, tenant_of

CURL = "curl/8.5.0"
NOBODY = "0123456789abcdef01234567"


async def opened(
    tenant: Tenant, user: Account, app: str = "controller_app", user_agent: str = CURL
) -> Session:
    return (await tenant.session(user.id, app, user_agent=user_agent))[0]


async def asked(tenant: Tenant, key: str, query: str = "", status: int = 200) -> Any:
    """The answer to a list, whose query stands as it would in a URL."""
    reply = await tenant.ask("GET", f"/sessions{query}", key)
    assert reply.status == status, reply.body
    return reply.body


async def ids(tenant: Tenant, key: str, query: str = "") -> list[str]:
    return [item["sessionId"] for item in (await asked(tenant, key, query))["items"]]


async def admin(tenant: Tenant, permission: str = "admin") -> str:
    return await tenant.project_key(permission)


async def test_session_has_the_members_of_the_document(tenant: Tenant) -> None:
    user = await tenant.user()
    session = await opened(tenant, user, "CashRegister")
    expected = {
        "sessionId": session.id,
        "identity": {
            "userName": "0@example.com",
            "deviceName": "curl",
            "envName": "CashRegister",
            "authenticationType": "Bearer",
        },
        "startedAt": timestamp(session.started_ms),
        "expiresAt": timestamp(session.expires_ms),
        "lastAccessAt": timestamp(session.last_access_ms),
        "_v": 1,
    }
    found = await asked(tenant, user.key, f"?sessionId={session.id}")
    assert found == {"items": [expected], "count": 1, "totalCount": 1}
    single = await tenant.ask("GET", f"/sessions/{session.id}", f"Bearer {user.key}")
    assert (single.status, single.body) == (200, expected)


async def test_ended_session_is_returned_and_its_key_refused(tenant: Tenant) -> None:
    user = await tenant.user()
    session, key = await tenant.session(user.id, "app", user_agent=CURL)
    shown = (await tenant.ask("GET", f"/sessions/{session.id}", user.key)).body
    ended = await tenant.ask("DELETE", f"/sessions/{session.id}", user.key)
    assert (ended.status, ended.body) == (200, {**shown, "_v": shown["_v"] + 1})
    assert (await tenant.ask("GET", "/sessions", key)).status == 401
    for method in ("GET", "DELETE"):
        again = await tenant.ask(method, f"/sessions/{session.id}", user.key)
        assert (again.status, again.reason) == (404, "NOT_FOUND")
    assert session.id not in await ids(tenant, user.key)


async def test_session_may_end_itself(tenant: Tenant) -> None:
    user = await tenant.user()
    (own,) = await ids(tenant, user.key)
    assert (await tenant.ask("DELETE", f"/sessions/{own}", user.key)).status == 200
    assert (await tenant.ask("GET", f"/sessions/{own}", user.key)).status == 401


async def test_session_in_use_is_not_ended(tenant: Tenant) -> None:
    user = await tenant.user()
    session = await opened(tenant, user)
    async with tenant.store.sessions.lease(tenant.project, session.id):
        refused = await tenant.ask("DELETE", f"/sessions/{session.id}", user.key)
        assert (refused.status, refused.reason) == (409, "SESSION_IN_USE")
        assert session.id in await ids(tenant, user.key)
    assert (await tenant.ask("DELETE", f"/sessions/{session.id}", user.key)).status == 200


async def test_user_sees_own_sessions_only(tenant: Tenant) -> None:
    ada, bob = await tenant.user(), await tenant.user()
    hers = await opened(tenant, ada)
    assert hers.id in await ids(tenant, ada.key)
    assert len(await ids(tenant, ada.key)) == 2
    assert await ids(tenant, bob.key, f"?sessionId={hers.id}") == []
    assert len(await ids(tenant, bob.key)) == 1
    answers = [
        await tenant.ask(method, f"/sessions/{session_id}", bob.key)
        for method in ("GET", "DELETE")
        for session_id in (hers.id, NOBODY, "x", "%00", "a" * 500, hers.id.upper())
    ]
    assert {(each.status, str(each.body)) for each in answers} == {(404, str(answers[0].body))}
    assert (await tenant.ask("GET", f"/sessions/{hers.id}", ada.key)).status == 200


async def test_project_key_sees_those_of_the_project(node: NodeProcess, tenant: Tenant) -> None:
    ada, bob = await tenant.user(), await tenant.user()
    reading, deciding = await admin(tenant, "read"), await admin(tenant)
    hers, his = await opened(tenant, ada), await opened(tenant, bob)
    for key in (reading, deciding):
        found = await ids(tenant, key)
        assert {hers.id, his.id} <= set(found)
        assert len(found) == 4
    refused = await tenant.ask("DELETE", f"/sessions/{hers.id}", reading)
    assert (refused.status, refused.reason) == (403, "PERMISSION_DENIED")
    async with tenant_of(node) as elsewhere:
        foreign = await admin(elsewhere)
        assert await ids(elsewhere, foreign) == []
        assert (await elsewhere.ask("DELETE", f"/sessions/{hers.id}", foreign)).status == 404
    assert (await tenant.ask("DELETE", f"/sessions/{hers.id}", deciding)).body["sessionId"] == hers.id
    assert (await tenant.ask("GET", "/sessions", ada.key)).status == 200, "the other session of hers"


async def test_device_that_logged_in_sees_its_own(tenant: Tenant) -> None:
    owner = await tenant.user()
    home = await tenant.home(owner)
    device, other = await tenant.device(home), await tenant.device(home)
    await tenant.store.devices.update(await stored(tenant, device.id), name="Lamp")
    session, key = await tenant.node_session(device.id, user_agent=CURL)
    await tenant.node_session(other.id, user_agent=CURL)
    (shown,) = (await asked(tenant, key))["items"]
    assert shown["sessionId"] == session.id
    assert shown["identity"] == {
        "userName": str(device.id), "deviceName": "Lamp", "envName": "", "authenticationType": "Bearer",
    }  # fmt: skip
    assert await ids(tenant, await admin(tenant), "?identity.deviceName=Lamp") == [session.id]
    assert session.id not in await ids(tenant, owner.key)
    assert (await tenant.ask("GET", f"/sessions/{session.id}", owner.key)).status == 404
    for method, path in (("GET", "/sessions"), ("GET", f"/sessions/{session.id}")):
        refused = await tenant.ask(method, path, device.key)
        assert (refused.status, refused.reason) == (403, "PERMISSION_DENIED"), (
            "a device's own key is no session"
        )
    assert (await tenant.ask("DELETE", f"/sessions/{session.id}", key)).status == 200
    assert (await tenant.ask("GET", "/sessions", key)).status == 401


async def stored(tenant: Tenant, device_id: int) -> Any:
    return await tenant.store.devices.get(tenant.project, device_id)


@pytest.mark.parametrize("accounts", ACCOUNT_SYSTEMS)
async def test_user_is_named_as_the_account_system_names_them(node: NodeProcess, accounts: str) -> None:
    async with tenant_of(node, accounts) as tenant:
        known: dict[str, dict[str, str]] = {
            "email": {"email": "Ada@example.com"},
            "phone": {"phone": "+14155550123"},
            "byou": {"external_key": "999"},
        }
        user = await tenant.store.users.create(tenant.project, "Ada", **known[accounts])  # type: ignore[arg-type]
        session, key = await tenant.session(user.id, "", user_agent=CURL)
        (name,) = known[accounts].values()
        (shown,) = (
            await asked(tenant, key, f"?identity.userName=startswith:{name[:2].replace('+', '%2B')}")
        )["items"]
        assert (shown["sessionId"], shown["identity"]["userName"]) == (session.id, name)


async def test_user_without_name_is_named_by_id(by_key: TenantWithApp) -> None:
    tenant = by_key
    user = await tenant.store.users.create(tenant.project, "")
    _, key = await tenant.session(user.id, "", user_agent=CURL)
    (shown,) = (await asked(tenant, key))["items"]
    assert shown["identity"]["userName"] == str(user.id)


async def three(tenant: Tenant, user: Account) -> list[Session]:
    """Sessions in three apps, beside the one of the user's key."""
    return [await opened(tenant, user, app) for app in ("BackOffice", "CashRegister", "Kiosk")]


async def test_questions_of_a_url(tenant: Tenant) -> None:
    user = await tenant.user()
    made = await three(tenant, user)
    back, cash, kiosk = (session.id for session in made)
    # They may have begun in one millisecond.
    by_start = [session.id for session in sorted(made, key=lambda each: (each.started_ms, each.id))]
    await tenant.used(cash)
    start = (await tenant.ask("GET", f"/sessions/{back}", user.key)).body["startedAt"]
    questions = {
        "?identity.envName=in:BackOffice:Kiosk": [each for each in by_start if each != cash],
        "?IDENTITY.ENVNAME=CashRegister": [cash],
        "?identity.envName=ne:controller_app;startswith:K": [kiosk],
        "?identity.envName=ne:controller_app&identity.envname=contains:Off": [back],
        "?identity.envName=ne:controller_app&$sort=-identity.envName": [kiosk, cash, back],
        "?identity.envName=ne:controller_app&$sort=_v,identity.envName:desc": [kiosk, back, cash],
        "?identity.envName=ne:controller_app&$sort=+identity.envName": [back, cash, kiosk],
        "?identity.envName=ne:controller_app&$sort=-_v&$sort=-identity.envName": [cash, kiosk, back],
        "?identity.envName=ne:controller_app&$sort=identity.envName&$skip=1&$take=1": [cash],
        "?identity.envName=ne:controller_app&$skip=1": by_start[1:],
        "?%24take=0": [],
        "?_v=gt:1": [cash],
        f"?startedAt={start}&identity.envName=BackOffice": [back],
        f"?startedAt=lt:{start}&identity.envName=BackOffice": [],
        "?expiresAt=gt:2020-01-01;lt:2021-01-01": [],
        "?lastAccessAt=gte:2020-01-01T00:00:00+02:00&identity.envName=Kiosk": [kiosk],
        "?identity.userName=0%40example.com&identity.envName=Kiosk": [kiosk],
        "?identity.userName=startswith:9": [],
    }
    # `_v` is what the question says only because nothing else has used these sessions.
    for query, expected in questions.items():
        assert await ids(tenant, user.key, query) == expected, query


async def test_counts(tenant: Tenant) -> None:
    user = await tenant.user()
    await three(tenant, user)
    body = await asked(tenant, user.key, "?$skip=1&$take=2")
    assert (len(body["items"]), body["count"], body["totalCount"]) == (2, 2, 4)
    assert await asked(tenant, user.key, "?$count=true") == {"count": 4, "totalCount": 4}
    only = await asked(tenant, user.key, "?$count=true&$skip=3&$take=5&identity.envName=ne:Kiosk")
    assert only == {"count": 0, "totalCount": 3}
    assert "items" in await asked(tenant, user.key, "?$count=false")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("?$take=-1", "$take"),
        ("?$take=1&$take=2", "$take"),
        ("?$skip=x", "$skip"),
        ("?$count=perhaps", "$count"),
        ("?$sort=nonsense", "$sort"),
        ("?$filter=x", "$filter"),
        ("?userName=999", "userName"),
        ("?identity.userName=near:9", "identity.userName"),
        ("?identity.userName=eq:1:2", "identity.userName"),
        ("?_v=gt:", "_v"),
        ("?_v=two", "_v"),
        ("?startedAt=gt:yesterday", "startedAt"),
        ("?startedAt=", "startedAt"),
        ("?identity.userName=" + "x" * 10_000, "identity.userName"),
        ("?" + "x" * 10_000 + "=1", "x" * 64),
        ("?authToken=secret", "authToken"),
    ],
)
async def test_bad_input_is_refused_by_name(tenant: Tenant, query: str, field: str) -> None:
    user = await tenant.user()
    body = await asked(tenant, user.key, query, 400)
    assert (body["reason"], body["data"]["field"]) == ("INVALID_PARAMETER", field)
    assert "secret" not in str(body)


async def test_body_that_is_too_large_is_bad_input_too(tenant: Tenant) -> None:
    user = await tenant.user()
    session = await opened(tenant, user)
    for method in ("GET", "DELETE"):
        refused = await tenant.ask(method, f"/sessions/{session.id}", user.key, data=bytes(100_000))
        assert (refused.status, refused.body["data"]["field"]) == (400, "body")


async def test_request_without_key_reveals_nothing(tenant: Tenant) -> None:
    for method, path in (
        ("GET", "/sessions"),
        ("GET", f"/sessions/{NOBODY}"),
        ("DELETE", f"/sessions/{NOBODY}"),
    ):
        refused: Reply = await tenant.ask(method, path, None)
        assert (refused.status, refused.reason) == (401, "AUTHORIZATION_REQUIRED")


async def test_list_may_be_asked_for_by_other_origins_and_by_head(tenant: Tenant) -> None:
    user = await tenant.user()
    headers = {"Authorization": user.key, "Origin": "https://app.example.com"}
    async with tenant.http.get("/sessions", headers=headers) as answer:
        assert answer.headers.getall("Access-Control-Allow-Origin") == ["*"]
        assert answer.content_type == "application/json"
    async with tenant.http.head("/sessions", headers=headers) as answer:
        assert (answer.status, await answer.read()) == (200, b"")
    # The connection is as good as new.
    assert len(await ids(tenant, user.key)) == 1


async def test_no_answer_holds_a_key(tenant: Tenant) -> None:
    user = await tenant.user()
    deciding = await admin(tenant)
    for query in ("", "?$sort=sessionId"):
        reply = await tenant.ask("GET", f"/sessions{query}", deciding)
        assert user.key.rpartition(".")[2] not in str(reply.body)
