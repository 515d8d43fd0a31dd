"""Users through the REST service: who registers, is found, changes and goes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kit.accounts import EMAIL, PASSWORD, PHONE, TenantWithApp, field, reason
from kit.clock import now_ms
from kit.node import eventually
from kit.recovery import dying_change

EMAIL_OF_EVE = "eve@example.com"


async def test_user_registers_by_email(by_email: TenantWithApp) -> None:
    made = await by_email.register(name="Ada", email=EMAIL, password=PASSWORD, id=0, verified=True)
    assert made.status == 201
    created = made.body.pop("creationTime")
    assert created.endswith("Z")
    user = made.body.pop("id")
    assert made.body == {
        "projectId": by_email.project, "name": "Ada", "verified": False, "email": EMAIL,
    }  # fmt: skip
    [message] = await by_email.messages()
    assert (message.kind, message.to) == ("emailVerification", EMAIL)
    assert message.good_until_ms == pytest.approx(now_ms() + 86_400_000, abs=30_000)
    read = await by_email.ask("GET", f"/users/{user}", await by_email.key_of(user))
    assert (read.status, read.body["creationTime"]) == (200, created)


async def test_user_registers_by_phone(by_phone: TenantWithApp) -> None:
    made = await by_phone.register(name="Ada", phoneNumber="+1 (415) 555-0123", email="", password=None)
    assert made.status == 201
    assert (made.body["phoneNumber"], made.body["verified"]) == (PHONE, False)
    [message] = await by_phone.messages()
    assert (message.kind, message.to) == ("signInCode", PHONE)
    assert message.code.isdigit()
    assert message.good_until_ms == pytest.approx(now_ms() + 600_000, abs=30_000)


async def test_project_enters_its_own_users(by_key: TenantWithApp) -> None:
    key, ask = await by_key.project_key("byou"), by_key.ask
    bare = await ask("POST", "/users", key, {"projectId": by_key.project})
    assert (bare.status, bare.body["verified"], bare.body["name"]) == (201, True, "")
    full = {"projectId": by_key.project, "name": "Ada", "externalKey": "ada-1"}
    made = await ask("POST", "/users", key, full)
    assert (made.status, made.body["externalKey"]) == (201, "ada-1")
    assert reason(await ask("POST", "/users", key, full)) == "USER_EXISTS"
    assert await by_key.messages() == []


@pytest.mark.parametrize(
    ("body", "named", "why"),
    [
        ({"password": PASSWORD, "name": "Ada"}, "email", "INVALID_PARAMETER"),
        ({"email": "no address", "password": PASSWORD, "name": "Ada"}, "email", "INVALID_EMAIL"),
        ({"email": EMAIL, "name": "Ada"}, "password", "INVALID_PARAMETER"),
        ({"email": EMAIL, "password": "short", "name": "Ada"}, "password", "PASSWORD_TOO_SHORT"),
        ({"email": EMAIL, "password": PASSWORD}, "name", "INVALID_PARAMETER"),
        ({"email": EMAIL, "password": PASSWORD, "name": "x" * 257}, "name", "INVALID_PARAMETER"),
        ({"email": EMAIL, "password": PASSWORD, "name": 5}, "name", "INVALID_PARAMETER"),
        ({"email": EMAIL, "password": PASSWORD, "phoneNumber": PHONE, "name": "Ada"}, "phoneNumber", None),
        ({"email": EMAIL, "password": PASSWORD, "externalKey": "1", "name": "Ada"}, "externalKey", None),
        ({"projectId": 987_654_321}, "projectId", None),
        ({"projectId": "x"}, "projectId", None),
        ({"projectId": None}, "projectId", None),
    ],
)
async def test_bad_registration_names_its_field(
    by_email: TenantWithApp, body: dict[str, Any], named: str, why: str | None
) -> None:
    refused = await by_email.register(**body)
    assert field(refused) == named
    assert why in (None, refused.body["reason"])
    assert await by_email.messages() == []


async def test_disabled_project_refuses_registrations(by_email: TenantWithApp) -> None:
    await by_email.store.projects.disable(by_email.project)
    assert field(await by_email.register(name="Ada", email=EMAIL, password=PASSWORD)) == "projectId"
    assert field(await by_email.sign_in(email=EMAIL, password=PASSWORD)) == "projectId"


async def test_address_registered_at_once_has_one_user(by_email: TenantWithApp) -> None:
    spellings = [
        "eve@example.com",
        "EVE@example.com",
        "Eve@Example.Com",
        "eVe@example.com",
    ]
    passwords = [f"{PASSWORD} {number}" for number in range(4)]
    replies = await asyncio.gather(
        *(
            by_email.register(name=each, email=each, password=password)
            for each, password in zip(spellings, passwords, strict=True)
        )
    )
    assert [reply.status for reply in replies] == [201] * 4
    # They are one user, whichever of them it will be.
    assert len({reply.body["id"] for reply in replies}) == 1
    reader = await by_email.project_key("read")
    assert len((await by_email.ask("GET", "/users", reader)).body) == 1
    won = await by_email.token()
    assert (await by_email.post("/auth/user/emailVerification", token=won)).status == 200
    for message in (await by_email.messages())[:-1]:
        assert reason(await by_email.post("/auth/user/emailVerification", token=message.token)) == (
            "INVALID_TOKEN"
        )
    signed_in = [await by_email.sign_in(email=EMAIL_OF_EVE, password=each) for each in passwords]
    assert sorted(reply.status for reply in signed_in) == [200, 403, 403, 403]
    late = await by_email.register(name="late", email=EMAIL_OF_EVE, password=PASSWORD)
    assert reason(late) == "EMAIL_IN_USE"


async def test_number_registered_at_once_has_one_user(by_phone: TenantWithApp) -> None:
    replies = await asyncio.gather(*(by_phone.register(name=f"{n}", phoneNumber=PHONE) for n in range(5)))
    assert sorted(reply.status for reply in replies) == [201, 403, 403, 403, 403]
    assert {reason(reply) for reply in replies if reply.status == 403} == {"USER_EXISTS_UNVERIFIED"}
    await by_phone.sign_in(phoneNumber=PHONE, code=await by_phone.code())
    await by_phone.redis.delete(
        *[name async for name in by_phone.redis.scan_iter(f"*{{p{by_phone.project}}}:attempts:*")]
    )
    assert reason(await by_phone.register(name="late", phoneNumber=PHONE)) == "USER_EXISTS"


async def test_user_without_mail_after_kill_can_request_one(by_email: TenantWithApp) -> None:
    # As a process leaves it that dies between the record and the message.
    await by_email.store.users.create(by_email.project, "Ada", email=EMAIL, password=PASSWORD)
    assert (await by_email.start("emailVerification/start", email=EMAIL)).status == 200
    verified = await by_email.post("/auth/user/emailVerification", token=await by_email.token())
    assert verified.status == 200
    assert (await by_email.sign_in(email=EMAIL, password=PASSWORD)).status == 200


async def test_user_is_changed_by_themself(by_email: TenantWithApp) -> None:
    user = await by_email.member()
    path, key, ask = f"/users/{user}", await by_email.key_of(user), by_email.ask
    whole = (await ask("GET", path, key)).body
    assert (await ask("PATCH", path, key, {**whole, "name": "Ada L."})).status == 204
    assert (await ask("GET", path, key)).body == {**whole, "name": "Ada L."}
    for changed in (
        {"id": user + 1}, {"projectId": 1}, {"creationTime": "2020-01-01T00:00:00Z"},
        {"email": "eve@example.com"}, {"phoneNumber": PHONE}, {"verified": False}, {"externalKey": "1"},
        {"name": ""}, {"password": "short"},
    ):  # fmt: skip
        assert field(await ask("PATCH", path, key, {**whole, **changed})) == next(iter(changed))
    assert (await ask("PATCH", path, key, {"password": "staple battery"})).status == 204
    # The session that set it goes on, and it is the only one from now on.
    assert (await ask("GET", path, key)).status == 200
    assert reason(await by_email.sign_in(email=EMAIL, password=PASSWORD)) == "INCORRECT_PASSWORD"
    assert (await by_email.sign_in(email=EMAIL, password="staple battery")).status == 200


async def test_user_has_a_time_zone(by_email: TenantWithApp) -> None:
    user = await by_email.member()
    path, key, ask = f"/users/{user}", await by_email.key_of(user), by_email.ask
    whole = (await ask("GET", path, key)).body
    assert "uiTimeZone" not in whole
    assert (await ask("PATCH", path, key, {**whole, "uiTimeZone": "Europe/Berlin"})).status == 204
    assert (await ask("GET", path, key)).body == {**whole, "uiTimeZone": "Europe/Berlin"}
    for wrong in ("Mars/Olympus", "", "../etc/passwd", "x" * 10_000, "\0", 5, None):
        assert field(await ask("PATCH", path, key, {"uiTimeZone": wrong})) == "uiTimeZone"
    assert (await ask("PATCH", path, key, {"uiTimeZone": "UTC"})).status == 204
    assert (await ask("GET", path, key)).body == whole


async def test_password_is_for_email_accounts(by_phone: TenantWithApp, by_key: TenantWithApp) -> None:
    for people, phone in ((by_phone, PHONE), (by_key, None)):
        user = await people.store.users.create(people.project, "Ada", phone=phone)
        path, key = f"/users/{user.id}", await people.key_of(user.id)
        assert field(await people.ask("PATCH", path, key, {"password": PASSWORD})) == "password"


async def test_nameless_user_of_a_project_may_stay_so(by_key: TenantWithApp) -> None:
    user = await by_key.store.users.create(by_key.project, "")
    path, key, ask = f"/users/{user.id}", await by_key.key_of(user.id), by_key.ask
    assert (await ask("PATCH", path, key, (await ask("GET", path, key)).body)).status == 204


async def test_deleted_user_leaves_only_shared_data(by_email: TenantWithApp) -> None:
    store, project, ask = by_email.store, by_email.project, by_email.ask
    ada, bob = await by_email.member(), await by_email.member("bob@example.com")
    key, again = await by_email.key_of(ada), await by_email.key_of(ada)
    mine, shared = [(await store.homes.create(project, "home", ada)).id for _ in range(2)]
    await store.homes.add_member(project, shared, bob)
    assert (await ask("DELETE", f"/users/{ada}", key, {})).status == 204
    for dead in (key, again):
        assert (await ask("GET", f"/users/{ada}", dead)).status == 401
    assert await store.homes.get(project, mine) is None
    assert [(each.user_id, each.role) for each in await store.homes.members(project, shared)] == [
        (bob, "owner")
    ]
    assert reason(await by_email.sign_in(email=EMAIL, password=PASSWORD)) == "INCORRECT_PASSWORD"
    assert (await by_email.register(name="Ada", email=EMAIL, password=PASSWORD)).status == 201


@pytest.mark.parametrize("step", ["record", "announce"])
async def test_deletion_that_is_killed_is_finished_by_a_node(by_email: TenantWithApp, step: str) -> None:
    store, project = by_email.store, by_email.project
    ada = await by_email.member()
    home = (await store.homes.create(project, "home", ada)).id
    with dying_change(by_email.node.redis_url, step, "users.delete", project, ada) as dying:
        await dying.arrives()
        dying.dies()
    if step == "record":
        # Nothing has happened yet.
        assert await store.users.get(project, ada) is not None
        return

    async def gone() -> bool:
        return await store.homes.get(project, home) is None

    assert await store.users.get(project, ada) is None
    # Nodes look after five seconds, so that who deletes and lives may finish it.
    await eventually(gone, 30.0)


async def test_users_are_listed_in_parts_and_searched(by_email: TenantWithApp) -> None:
    store, project = by_email.store, by_email.project
    for name in ("Ada", "ÄGIR", "Bob", "Eve"):
        await store.users.create(project, name, email=f"{name[0].encode().hex()}.{name[1:]}@Example.com")
    reader = await by_email.project_key("read")

    async def listed(**query: Any) -> tuple[list[str], str]:
        reply = await by_email.ask("GET", "/users", reader, params=query)
        assert reply.status == 200
        return [user["name"] for user in reply.body], reply.range

    assert await listed() == (["Ada", "ÄGIR", "Bob", "Eve"], "0-3/4")
    assert await listed(skip=1, limit=2) == (["ÄGIR", "Bob"], "1-2/4")
    assert await listed(skip=9) == ([], "*/4")
    assert await listed(limit=0) == ([], "*/4")
    assert await listed(search="ägir") == (["ÄGIR"], "0-0/1")
    assert await listed(search="OB@EXAMPLE") == (["Bob"], "0-0/1")
    assert await listed(search="example.com", skip=1, limit=2) == (["ÄGIR", "Bob"], "1-2/4")
    assert await listed(search="nobody") == ([], "*/0")
    refused = await by_email.ask("GET", "/users", reader, params={"skip": "-1"})
    assert field(refused) == "skip"


async def test_many_users_are_searched_in_pages(
    by_key: TenantWithApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, project = by_key.store, by_key.project
    for number in range(7):
        await store.users.create(project, f"user {number % 2}", external_key=f"KEY-{number}")
    monkeypatch.setattr("homewire.store.database.PAGE", 3)
    monkeypatch.setattr("homewire.users.store.PAGE", 3)
    assert [user.external_key for user in (await store.users.list(project))[0]] == [
        f"KEY-{number}" for number in range(7)
    ]
    odd, total = await store.users.list(project, skip=1, search="USER 1")
    assert ([user.external_key for user in odd], total) == (["KEY-3", "KEY-5"], 3)
    assert (await store.users.list(project, search="key-6"))[1] == 1
