"""Changing a password: what proves that one may, what ends with it, who is told, and which are too weak."""

from __future__ import annotations

from typing import Final

import pytest
from argon2 import PasswordHasher, extract_parameters

from kit.accounts import APP, EMAIL, PASSWORD, TenantWithApp, field, reason
from kit.tenant import Reply

NEW: Final = "staple battery"
LONG_AGO_MS: Final = 3_600_000
WEAK: Final = (
    "password", "12345678", "PassWord1", "qwertyuiop", "        ", "aaaaaaaa", " 77777777",
    EMAIL, EMAIL.upper(), "ada@example.com", "ada.example.com", "Ada Lovelace", "ADALOVELACE",
)  # fmt: skip


async def key_of_old(people: TenantWithApp, user: int) -> str:
    """The key of a session that began an hour ago."""
    return (await people.session(user, APP, ahead_ms=-LONG_AGO_MS))[1]


async def change(people: TenantWithApp, user: int, key: str, **body: object) -> Reply:
    return await people.ask("PATCH", f"/users/{user}", key, body)


async def lives(people: TenantWithApp, key: str) -> bool:
    return (await people.ask("GET", "/userSession", key)).status == 200


async def test_key_alone_changes_no_password(by_email: TenantWithApp) -> None:
    user = await by_email.member()
    key, other = await key_of_old(by_email, user), await by_email.key_of(user)
    made = await by_email.store.sessions.of_token(other)
    assert made is not None
    # Made just now, by a key: that proves nothing.
    _, derived = await by_email.session(user, APP, parent=made)
    proofs: tuple[dict[str, object], ...] = ({}, {"currentPassword": ""}, {"currentPassword": "wrong"})
    for key_alone in (key, derived):
        for proof in proofs:
            refused = await change(by_email, user, key_alone, password=NEW, name="Eve", **proof)
            assert (reason(refused), field(refused)) == ("INSUFFICIENT_AUTH", "currentPassword")
    # Who gives one must know it, whenever they logged in.
    assert reason(await change(by_email, user, other, password=NEW, currentPassword="wrong")) == (
        "INSUFFICIENT_AUTH"
    )
    assert (await by_email.ask("GET", f"/users/{user}", key)).body["name"] == "Ada"
    assert await by_email.messages() == []
    assert (await by_email.sign_in(email=EMAIL, password=PASSWORD)).status == 200
    assert await lives(by_email, other)
    # What is no secret needs no proof.
    assert (await change(by_email, user, key, name="Ada L.", currentPassword="wrong")).status == 204


@pytest.mark.parametrize("recent", [True, False])
async def test_new_password_ends_other_sessions_and_is_notified(
    by_email: TenantWithApp, recent: bool
) -> None:
    user = await by_email.member()
    others = [await by_email.key_of(user), await key_of_old(by_email, user)]
    key = await (by_email.key_of(user) if recent else key_of_old(by_email, user))
    proof = {} if recent else {"currentPassword": PASSWORD}
    assert (await change(by_email, user, key, password=NEW, **proof)).status == 204
    assert [await lives(by_email, each) for each in (*others, key)] == [False, False, True]
    assert reason(await by_email.sign_in(email=EMAIL, password=PASSWORD)) == "INCORRECT_PASSWORD"
    assert (await by_email.sign_in(email=EMAIL, password=NEW)).status == 200
    assert [(each.kind, each.to) for each in await by_email.messages()] == [("passwordChanged", EMAIL)]


async def test_other_sessions_may_stay(by_email: TenantWithApp) -> None:
    user = await by_email.member()
    key, other = await by_email.key_of(user), await by_email.key_of(user)
    assert (await change(by_email, user, key, password=NEW, keepOtherSessions=True)).status == 204
    assert [await lives(by_email, each) for each in (key, other)] == [True, True]
    assert len(await by_email.messages()) == 1


async def test_session_that_a_key_made_ends_with_that_of_the_key(by_email: TenantWithApp) -> None:
    user = await by_email.member()
    key, store = await by_email.key_of(user), by_email.store
    parent = await store.sessions.of_token(key)
    assert parent is not None
    _, made = await by_email.session(user, APP, parent=parent)
    changed = await change(by_email, user, made, password=NEW, currentPassword=PASSWORD)
    assert changed.status == 204
    assert [await lives(by_email, each) for each in (key, made)] == [False, False]


async def test_attempts_at_present_password_are_limited_as_at_login(by_email: TenantWithApp) -> None:
    user = await by_email.member()
    key = await by_email.key_of(user)
    for _ in range(10):
        await change(by_email, user, key, password=NEW, currentPassword="wrong")
    late = await change(by_email, user, key, password=NEW, currentPassword=PASSWORD)
    assert (late.status, late.body["data"]["limit"]) == (429, "account_attempts")


@pytest.mark.parametrize("weak", WEAK)
async def test_weak_password_is_taken_nowhere(by_email: TenantWithApp, weak: str) -> None:
    user = await by_email.member()
    key = await by_email.key_of(user)
    assert (await change(by_email, user, key, name="Ada Lovelace")).status == 204
    refused = await change(by_email, user, key, password=weak)
    assert (reason(refused), field(refused)) == ("PASSWORD_TOO_WEAK", "password")
    token = await by_email.reset_token(user)
    refused = await by_email.post("/auth/user/passwordReset", token=token, newPassword=weak)
    assert (reason(refused), field(refused)) == ("PASSWORD_TOO_WEAK", "newPassword")
    assert (await by_email.sign_in(email=EMAIL, password=PASSWORD)).status == 200
    # That of a new user: of the same name, with another address.
    own = weak.lower().replace("ada@", "bob@").replace("ada.", "bob.")
    refused = await by_email.register(name="Ada Lovelace", email="bob@example.com", password=own)
    assert (reason(refused), field(refused)) == ("PASSWORD_TOO_WEAK", "password")


async def test_password_reset_is_notified(by_email: TenantWithApp) -> None:
    user = await by_email.member()
    token = await by_email.reset_token(user)
    assert (await by_email.post("/auth/user/passwordReset", token=token, newPassword=NEW)).status == 200
    assert [(each.kind, each.to, each.token) for each in await by_email.messages()] == [
        ("passwordChanged", EMAIL, "")
    ]


async def test_login_rehashes_password_with_present_parameters(by_email: TenantWithApp) -> None:
    user, redis = await by_email.member(), by_email.redis
    name = by_email.slot.user(user)
    old = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
    await redis.hset(name, "password", old)
    assert reason(await by_email.sign_in(email=EMAIL, password="wrong")) == "INCORRECT_PASSWORD"
    assert await redis.hget(name, "password") == old.encode()
    assert (await by_email.sign_in(email=EMAIL, password=PASSWORD)).status == 200
    new = await by_email.store.users.stored_password(by_email.project, user)
    parameters = extract_parameters(new)
    assert (parameters.time_cost, parameters.memory_cost) == (2, 19_456)
    assert (await by_email.sign_in(email=EMAIL, password=PASSWORD)).status == 200
    assert await redis.hget(name, "password") == new.encode()
