"""Changing the e-mail address or phone number of a user: proven first, and told to the old one."""

from __future__ import annotations

import pytest

from kit.accounts import APP, EMAIL, PASSWORD, PHONE, TenantWithApp, field, reason
from kit.tenant import Reply

NEW, NEW_PHONE = "Ada.L@example.com", "+14155550199"
HOUR_MS = 3_600_000


async def start(people: TenantWithApp, user: int, key: str, **body: object) -> Reply:
    return await people.ask("POST", f"/users/{user}/addressChange/start", key, body)


async def finish(people: TenantWithApp, user: int, key: str, code: str) -> Reply:
    return await people.ask("POST", f"/users/{user}/addressChange", key, {"code": code})


async def status(people: TenantWithApp, key: str) -> int:
    return (await people.ask("GET", "/userSession", key)).status


async def test_new_email_address_counts_once_it_is_proven(by_email: TenantWithApp) -> None:
    user = await by_email.member()
    key, other = await by_email.key_of(user), await by_email.key_of(user)
    reset = await by_email.reset_token(user)
    assert (await start(by_email, user, key, email=NEW)).status == 204
    [sent] = await by_email.messages()
    assert (sent.kind, sent.to, len(sent.code)) == ("emailChange", NEW, 8)
    # Nothing is changed yet.
    assert (await by_email.ask("GET", f"/users/{user}", key)).body["email"] == EMAIL
    assert reason(await by_email.sign_in(email=NEW, password=PASSWORD)) == "INCORRECT_PASSWORD"
    assert await status(by_email, other) == 200
    wrong = await finish(by_email, user, key, "00000000" if sent.code != "00000000" else "11111111")
    assert (reason(wrong), field(wrong)) == ("INVALID_AUTH_CODE", "code")

    assert (await finish(by_email, user, key, sent.code)).status == 204
    assert (await by_email.ask("GET", f"/users/{user}", key)).body["email"] == NEW
    assert [await status(by_email, each) for each in (key, other)] == [200, 401]
    assert (await by_email.sign_in(email=NEW.upper(), password=PASSWORD)).status == 200
    assert reason(await by_email.sign_in(email=EMAIL, password=PASSWORD)) == "INCORRECT_PASSWORD"
    assert [(each.kind, each.to, each.code) for each in await by_email.messages(EMAIL)] == [
        ("emailChanged", EMAIL, "")
    ]
    # What was sent to the address before is good for nothing, and the address is free again.
    late = await by_email.post("/auth/user/passwordReset", token=reset, newPassword="staple battery")
    assert reason(late) == "INVALID_TOKEN"
    assert reason(await finish(by_email, user, key, sent.code)) == "INVALID_AUTH_CODE"
    assert await by_email.member(EMAIL) != user


async def test_link_to_the_address_before_verifies_nothing(by_email: TenantWithApp) -> None:
    user = (await by_email.register(name="Ada", email=EMAIL, password=PASSWORD)).body["id"]
    link, key = await by_email.token(), await by_email.key_of(user)
    assert (await start(by_email, user, key, email=NEW)).status == 204
    assert (await finish(by_email, user, key, (await by_email.messages(NEW))[-1].code)).status == 204
    assert reason(await by_email.post("/auth/user/emailVerification", token=link)) == "INVALID_TOKEN"


async def test_new_number_counts_once_it_is_proven(by_phone: TenantWithApp) -> None:
    store = by_phone.store
    user = (await store.users.create(by_phone.project, "Ada", phone=PHONE, verified=True)).id
    key = await by_phone.key_of(user)
    assert field(await start(by_phone, user, key, email=NEW)) == "email"
    # Nor is an SMS sent to a satellite.
    for impossible in ("555", "+881612345678"):
        assert field(await start(by_phone, user, key, phoneNumber=impossible)) == "phoneNumber"
    assert (await start(by_phone, user, key, phoneNumber=NEW_PHONE)).status == 204
    [sent] = await by_phone.messages()
    assert (sent.kind, sent.to) == ("phoneChange", NEW_PHONE)
    assert (await finish(by_phone, user, key, sent.code)).status == 204
    assert (await by_phone.ask("GET", f"/users/{user}", key)).body["phoneNumber"] == NEW_PHONE
    assert await store.users.by_phone(by_phone.project, PHONE) is None
    assert [each.kind for each in await by_phone.messages(PHONE)] == ["phoneChanged"]


async def test_key_alone_changes_no_address(by_email: TenantWithApp) -> None:
    user = await by_email.member()
    _, key = await by_email.session(user, APP, ahead_ms=-HOUR_MS)
    for proof in ({}, {"currentPassword": "wrong"}):
        refused = await start(by_email, user, key, email=NEW, **proof)
        assert (reason(refused), field(refused)) == ("INSUFFICIENT_AUTH", "currentPassword")
    assert await by_email.messages() == []
    assert (await start(by_email, user, key, email=NEW, currentPassword=PASSWORD)).status == 204


@pytest.mark.parametrize("taken_at", ["start", "end"])
async def test_address_of_another_user_is_refused(by_email: TenantWithApp, taken_at: str) -> None:
    user = await by_email.member()
    key = await by_email.key_of(user)
    if taken_at == "start":
        await by_email.member(NEW)
        assert reason(await start(by_email, user, key, email=NEW.upper())) == "EMAIL_IN_USE"
        assert await by_email.messages() == []
    else:
        assert (await start(by_email, user, key, email=NEW)).status == 204
        [sent] = await by_email.messages()
        await by_email.member(NEW)
        assert reason(await finish(by_email, user, key, sent.code)) == "EMAIL_IN_USE"
    assert (await by_email.sign_in(email=EMAIL, password=PASSWORD)).status == 200


async def test_newest_code_counts_and_dies_with_its_fifth_wrong_try(by_email: TenantWithApp) -> None:
    user = await by_email.member()
    key = await by_email.key_of(user)
    for _ in range(2):
        await start(by_email, user, key, email=NEW)
    first, second = await by_email.messages()
    for _ in range(5):
        assert reason(await finish(by_email, user, key, first.code + "x")) == "INVALID_AUTH_CODE"
    assert reason(await finish(by_email, user, key, second.code)) == "INVALID_AUTH_CODE"


async def test_codes_and_attempts_at_them_are_limited(by_email: TenantWithApp) -> None:
    user = await by_email.member()
    key = await by_email.key_of(user)
    answers = [(await start(by_email, user, key, email=NEW)).status for _ in range(6)]
    assert answers == [204] * 5 + [429]
    answers = [(await finish(by_email, user, key, "wrong")).status for _ in range(11)]
    assert answers == [403] * 10 + [429]
