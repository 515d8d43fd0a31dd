"""How somebody gets a key, in projects of each account system, and how they prove an address."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from kit.accounts import APP, EMAIL, PASSWORD, PHONE, TenantWithApp, field, reason, tenant_with_app
from kit.clock import now_ms
from kit.node import NodeProcess, private_node

NEW: str = "staple battery"
CODE_TRIES = 5


@pytest.fixture(scope="module")
def hasty_node() -> Iterator[NodeProcess]:
    """One where everything that is sent is too old at once."""
    session_expiry = ("code_lifetime_s", "verification_lifetime_s", "password_reset_lifetime_s")
    with private_node(**dict.fromkeys(session_expiry, 0.001)) as node:
        yield node


async def account(people: TenantWithApp, key: str | None) -> dict[str, Any]:
    """What `GET /auth` says."""
    reply = await people.ask("GET", "/auth", key)
    assert reply.status == 200
    found: dict[str, Any] = reply.body
    return found


async def test_from_registration_to_a_key_by_email(by_email: TenantWithApp) -> None:
    user = (await by_email.register(name="Ada", email=EMAIL, password=PASSWORD)).body["id"]
    assert reason(await by_email.sign_in(email=EMAIL, password=PASSWORD)) == "USER_UNVERIFIED"
    assert reason(await by_email.sign_in(email=EMAIL, password="wrong")) == "INCORRECT_PASSWORD"
    token = await by_email.token()
    verified = await by_email.post("/auth/user/emailVerification", token=token)
    assert (verified.status, verified.body) == (200, None)
    again = await by_email.post("/auth/user/emailVerification", token=token)
    assert (reason(again), field(again)) == ("INVALID_TOKEN", "token")
    signed_in = await by_email.sign_in(email="aDA@EXAMPLE.com", password=PASSWORD)
    assert signed_in.status == 200
    assert (signed_in.body["userId"], signed_in.body.keys()) == (
        user, {"token", "userId", "expirationTime"},
    )  # fmt: skip
    key = signed_in.body["token"]
    assert await account(by_email, key) == {
        "type": "user", "projectId": by_email.project, "userId": user, "appId": APP,
        "expirationTime": signed_in.body["expirationTime"],
    }  # fmt: skip
    assert (await by_email.ask("GET", f"/users/{user}", key)).body["verified"]
    [session] = await by_email.store.sessions.of_user(by_email.project, user)
    assert (session.address, session.app_id) == ("127.0.0.1", APP)
    assert "aiohttp" in session.user_agent


async def test_from_registration_to_a_key_by_phone(by_phone: TenantWithApp) -> None:
    user = (await by_phone.register(name="Ada", phoneNumber=PHONE)).body["id"]
    first = await by_phone.code()
    receipt = await by_phone.start("sms", phoneNumber="+1 415 555 0123")
    assert (receipt.status, receipt.body) == (200, {"recipient": PHONE})
    code = await by_phone.code()
    if first != code:
        assert reason(await by_phone.sign_in(phoneNumber=PHONE, code=first)) == "INVALID_AUTH_CODE"
    signed_in = await by_phone.sign_in(phoneNumber=PHONE, code=code)
    assert (signed_in.status, signed_in.body["userId"]) == (200, user)
    key = signed_in.body["token"]
    assert (await by_phone.ask("GET", f"/users/{user}", key)).body["verified"]
    assert reason(await by_phone.sign_in(phoneNumber=PHONE, code=code)) == "INVALID_AUTH_CODE"


async def test_project_gets_keys_for_its_own_users(by_key: TenantWithApp) -> None:
    key = await by_key.project_key("byou")
    user = (await by_key.ask("POST", "/users", key, {"projectId": by_key.project})).body["id"]
    signed_in = await by_key.sign_in(key, userId=user, appId=None)
    assert signed_in.status == 200
    about = await account(by_key, signed_in.body["token"])
    assert (about["type"], about["userId"], "appId" in about) == ("user", user, False)
    assert (await account(by_key, (await by_key.sign_in(key, userId=user)).body["token"]))["appId"] == APP
    assert field(await by_key.sign_in(key, userId=user, appId="another")) == "appId"
    assert field(await by_key.sign_in(key, userId=987_654_321)) == "userId"
    assert field(await by_key.sign_in(key)) == "userId"
    assert (await by_key.sign_in(userId=user)).status == 401
    # What a user has is no key of the project.
    assert (await by_key.sign_in(signed_in.body["token"], userId=user)).status == 403


async def test_project_key_is_for_its_own_project(by_key: TenantWithApp, node: NodeProcess) -> None:
    async with tenant_with_app(node, "byou") as other:
        key = await other.project_key("byou")
    user = await by_key.store.users.create(by_key.project, "Ada")
    assert field(await by_key.sign_in(key, userId=user.id)) == "projectId"
    assert field(await by_key.ask("POST", "/users", key, {"projectId": by_key.project})) == "projectId"


async def test_each_key_is_described(by_email: TenantWithApp) -> None:
    tenant = by_email
    device = await tenant.device(None)
    reader = await by_email.project_key("read")
    ended, key = await tenant.session(await by_email.member(), APP)
    assert await account(by_email, None) == {"type": "nobody"}
    assert await account(by_email, "nonsense") == {"type": "nobody"}
    assert await account(by_email, device.key) == {
        "type": "device", "projectId": by_email.project, "deviceId": device.id,
    }  # fmt: skip
    assert await account(by_email, reader) == {
        "type": "project key", "projectId": by_email.project, "projectKeyName": "key",
    }  # fmt: skip
    await tenant.store.sessions.end(by_email.project, ended.id)
    assert await account(by_email, key) == {"type": "nobody"}


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"email": None}, "email"),
        ({"email": "no address"}, "email"),
        ({"password": None}, "password"),
        ({"appId": None}, "appId"),
        ({"appId": "another"}, "appId"),
        ({"appId": "x" * 500}, "appId"),
        ({"projectId": None}, "projectId"),
        ({"projectId": 987_654_321}, "projectId"),
        ({"projectId": "x"}, "projectId"),
        ({"phoneNumber": PHONE}, "phoneNumber"),
        ({"code": "123456"}, "code"),
        ({"userId": 7}, "userId"),
    ],
)
async def test_bad_credentials_name_their_field(
    by_email: TenantWithApp, body: dict[str, Any], named: str
) -> None:
    await by_email.member()
    assert field(await by_email.sign_in(**{"email": EMAIL, "password": PASSWORD, **body})) == named


async def test_unknown_address_gets_the_answer_of_a_wrong_password(by_email: TenantWithApp) -> None:
    await by_email.member()
    nameless = await by_email.store.users.create(by_email.project, "No", email="no@example.com")
    assert nameless.email is not None
    wrong = await by_email.sign_in(email=EMAIL, password="wrong")
    assert reason(wrong) == "INCORRECT_PASSWORD"
    for email in ("unknown@example.com", nameless.email):
        assert (await by_email.sign_in(email=email, password="")).status == 403
        unknown = await by_email.sign_in(email=email, password=PASSWORD)
        assert (unknown.status, unknown.body) == (wrong.status, wrong.body)


async def test_key_in_the_header_matters_to_byou_alone(by_email: TenantWithApp) -> None:
    await by_email.member()
    for key in ("nonsense", await by_email.project_key()):
        assert (await by_email.sign_in(key, email=EMAIL, password=PASSWORD)).status == 200


async def test_forgotten_password(by_email: TenantWithApp) -> None:
    user = await by_email.member()
    keys = [(await by_email.sign_in(email=EMAIL, password=PASSWORD)).body["token"] for _ in range(3)]
    started = await by_email.start("passwordReset/start", email="ADA@example.com")
    assert (started.status, started.body) == (200, None)
    [message] = await by_email.messages()
    assert (message.kind, message.to) == ("passwordReset", EMAIL)
    assert message.good_until_ms == pytest.approx(now_ms() + 3_600_000, abs=30_000)
    path, token = "/auth/user/passwordReset", message.token
    short = await by_email.post(path, token=token, newPassword="short")
    assert (reason(short), field(short)) == ("PASSWORD_TOO_SHORT", "newPassword")
    assert field(await by_email.post(path, token=token)) == "newPassword"
    done = await by_email.post(path, token=token, newPassword=NEW)
    assert (done.status, done.body) == (200, None)
    assert [(await by_email.ask("GET", f"/users/{user}", key)).status for key in keys] == [401] * 3
    assert reason(await by_email.sign_in(email=EMAIL, password=PASSWORD)) == "INCORRECT_PASSWORD"
    assert (await by_email.sign_in(email=EMAIL, password=NEW)).status == 200
    assert reason(await by_email.post(path, token=token, newPassword=PASSWORD)) == "INVALID_TOKEN"


async def test_new_password_revokes_reset_token(by_email: TenantWithApp) -> None:
    user = await by_email.member()
    key = (await by_email.sign_in(email=EMAIL, password=PASSWORD)).body["token"]
    await by_email.start("passwordReset/start", email=EMAIL)
    [message] = await by_email.messages()
    changed = await by_email.ask("PATCH", f"/users/{user}", key, {"password": NEW})
    assert changed.status == 204
    late = await by_email.post("/auth/user/passwordReset", token=message.token, newPassword="somebody else's")
    assert reason(late) == "INVALID_TOKEN"


async def test_password_reset_verifies_address(by_email: TenantWithApp) -> None:
    await by_email.register(name="Ada", email=EMAIL, password=PASSWORD)
    await by_email.start("passwordReset/start", email=EMAIL)
    await by_email.post("/auth/user/passwordReset", token=await by_email.token(), newPassword=NEW)
    assert (await by_email.sign_in(email=EMAIL, password=NEW)).status == 200


async def test_token_serves_its_own_purpose_only(by_email: TenantWithApp) -> None:
    await by_email.register(name="Ada", email=EMAIL, password=PASSWORD)
    verification = await by_email.token()
    await by_email.start("passwordReset/start", email=EMAIL)
    reset = await by_email.token()
    wrong = await by_email.post("/auth/user/passwordReset", token=verification, newPassword=NEW)
    assert reason(wrong) == "INVALID_TOKEN"
    assert reason(await by_email.post("/auth/user/emailVerification", token=reset)) == "INVALID_TOKEN"
    assert field(await by_email.post("/auth/user/emailVerification", token="")) == "token"
    for token in ("v1.1.x", "v1.987654321." + reset.rsplit(".")[-1], reset[:-1] + "~"):
        assert reason(await by_email.post("/auth/user/emailVerification", token=token)) == "INVALID_TOKEN"
    assert (await by_email.post("/auth/user/emailVerification", token=verification)).status == 200


async def test_newest_token_counts(by_email: TenantWithApp) -> None:
    await by_email.register(name="Ada", email=EMAIL, password=PASSWORD)
    first = await by_email.token()
    await by_email.start("emailVerification/start", email=EMAIL)
    second = await by_email.token()
    assert reason(await by_email.post("/auth/user/emailVerification", token=first)) == "INVALID_TOKEN"
    assert (await by_email.post("/auth/user/emailVerification", token=second)).status == 200


async def test_token_works_once_however_many_try(by_email: TenantWithApp) -> None:
    user = await by_email.member()
    store, project = by_email.store, by_email.project
    token = await by_email.reset_token(user)
    passwords = [f"password {number}" for number in range(4)]
    replies = await asyncio.gather(
        *(by_email.post("/auth/user/passwordReset", token=token, newPassword=each) for each in passwords)
    )
    assert sorted(reply.status for reply in replies) == [200, 403, 403, 403]
    won = next(each for each, reply in zip(passwords, replies, strict=True) if reply.status == 200)
    assert await store.users.authenticate(project, EMAIL, won)


async def test_messages_reach_their_user_and_reveal_no_account(by_email: TenantWithApp) -> None:
    await by_email.member()
    await by_email.store.users.create(by_email.project, "New", email="new@example.com")
    for what, expected in (
        ("emailVerification/start", ["new@example.com"]),
        ("passwordReset/start", [EMAIL, "new@example.com"]),
    ):
        before = len(await by_email.messages())
        replies = [
            await by_email.start(what, email=each) for each in (EMAIL, "new@example.com", "x@example.com")
        ]
        assert [(reply.status, reply.body) for reply in replies] == [(200, None)] * 3
        assert [each.to for each in (await by_email.messages())[before:]] == expected


@pytest.mark.parametrize("what", ["emailVerification/start", "passwordReset/start", "sms"])
async def test_messages_are_for_their_account_system(
    by_email: TenantWithApp, by_phone: TenantWithApp, by_key: TenantWithApp, what: str
) -> None:
    right = by_phone if what == "sms" else by_email
    for people in (by_email, by_phone, by_key):
        started = await people.start(what, email=EMAIL, phoneNumber=PHONE)
        if people is not right:
            assert field(started) == "projectId"
    assert await by_key.messages() == []


async def test_unregistered_number_gets_no_code(by_phone: TenantWithApp) -> None:
    refused = await by_phone.start("sms", phoneNumber=PHONE)
    assert (reason(refused), field(refused)) == ("INVALID_PHONE_NUMBER", "phoneNumber")
    assert field(await by_phone.start("sms", phoneNumber="415")) == "phoneNumber"
    assert reason(await by_phone.sign_in(phoneNumber=PHONE, code="123456")) == "INVALID_AUTH_CODE"
    assert await by_phone.messages() == []


async def test_wrong_tries_kill_a_code(by_phone: TenantWithApp) -> None:
    await by_phone.register(name="Ada", phoneNumber=PHONE)
    code = await by_phone.code()
    wrong = "000000" if code != "000000" else "000001"
    for _ in range(CODE_TRIES - 1):
        assert reason(await by_phone.sign_in(phoneNumber=PHONE, code=wrong)) == "INVALID_AUTH_CODE"
    await by_phone.start("sms", phoneNumber=PHONE)
    code = await by_phone.code()
    wrong = "000000" if code != "000000" else "000001"
    # A new code has tries of its own, and they are no more.
    for _ in range(CODE_TRIES):
        assert reason(await by_phone.sign_in(phoneNumber=PHONE, code=wrong)) == "INVALID_AUTH_CODE"
    assert reason(await by_phone.sign_in(phoneNumber=PHONE, code=code)) == "INVALID_AUTH_CODE"


async def test_code_works_once_however_many_try(by_phone: TenantWithApp) -> None:
    await by_phone.register(name="Ada", phoneNumber=PHONE)
    code = await by_phone.code()
    replies = await asyncio.gather(*(by_phone.sign_in(phoneNumber=PHONE, code=code) for _ in range(5)))
    assert sorted(reply.status for reply in replies) == [200, 403, 403, 403, 403]


async def test_sent_tokens_and_codes_expire(hasty_node: NodeProcess) -> None:
    async with tenant_with_app(hasty_node, "email") as people:
        await people.register(name="Ada", email=EMAIL, password=PASSWORD)
        assert reason(await people.post("/auth/user/emailVerification", token=await people.token())) == (
            "INVALID_TOKEN"
        )
        await people.start("passwordReset/start", email=EMAIL)
        late = await people.post("/auth/user/passwordReset", token=await people.token(), newPassword=NEW)
        assert reason(late) == "INVALID_TOKEN"
        # Nor is anything of it kept.
        assert [name async for name in people.redis.scan_iter("*:proof*")] == []
    async with tenant_with_app(hasty_node, "phone") as people:
        await people.register(name="Ada", phoneNumber=PHONE)
        assert (
            reason(await people.sign_in(phoneNumber=PHONE, code=await people.code())) == "INVALID_AUTH_CODE"
        )
