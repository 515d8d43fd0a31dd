"""Registrations by e-mail reserve nothing until one is verified: nobody takes an account beforehand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from kit.accounts import APP, EMAIL, PASSWORD, PHONE, TenantWithApp, reason, tenant_with_app
from kit.node import NodeProcess, eventually, private_node

THEIRS = "the attacker's password"
DAY_MS = 86_400_000


async def invited(people: TenantWithApp, email: str = EMAIL) -> tuple[int, int, str]:
    """A user that the owner of a home has added to it: their id, the home, and the owner's key."""
    owner = await people.member("owner@example.com")
    key = await people.key_of(owner)
    home = (await people.store.homes.create(people.project, "home", owner)).id
    added = await people.ask("POST", f"/homes/{home}/members", key, {"email": email})
    assert added.status == 201
    return added.body["userId"], home, key


async def verify(people: TenantWithApp, token: str) -> int:
    return (await people.post("/auth/user/emailVerification", token=token)).status


@pytest.mark.parametrize("is_invited", [False, True])
@pytest.mark.parametrize("attacker_first", [False, True])
async def test_account_cannot_be_taken_before_its_owner_comes(
    by_email: TenantWithApp, is_invited: bool, attacker_first: bool
) -> None:
    user = (await invited(by_email))[0] if is_invited else None
    registrants = [("Eve", THEIRS), ("Ada", PASSWORD)]
    tokens, ids = {}, []
    for name, password in registrants if attacker_first else reversed(registrants):
        made = await by_email.register(name=name, email=EMAIL, password=password)
        assert made.status == 201
        ids.append(made.body["id"])
        tokens[name] = await by_email.token()
    assert len(set(ids)) == 1
    assert user in (None, ids[0])
    # Neither of them is in before an address was verified.
    for password in (THEIRS, PASSWORD):
        assert reason(await by_email.sign_in(email=EMAIL, password=password)) in (
            "USER_UNVERIFIED", "INCORRECT_PASSWORD",
        )  # fmt: skip
    # The owner of the address clicks the link of their own registration.
    assert await verify(by_email, tokens["Ada"]) == 200
    assert reason(await by_email.sign_in(email=EMAIL, password=THEIRS)) == "INCORRECT_PASSWORD"
    signed_in = await by_email.sign_in(email=EMAIL, password=PASSWORD)
    assert (signed_in.status, signed_in.body["userId"]) == (200, ids[0])
    shown = await by_email.ask("GET", f"/users/{ids[0]}", signed_in.body["token"])
    assert (shown.body["name"], shown.body["verified"]) == ("Ada", True)
    # And nothing is left of the other one.
    assert await verify(by_email, tokens["Eve"]) == 403
    assert reason(await by_email.sign_in(email=EMAIL, password=THEIRS)) == "INCORRECT_PASSWORD"
    assert reason(await by_email.register(name="Eve", email=EMAIL, password=THEIRS)) == "EMAIL_IN_USE"
    slot = by_email.slot
    assert not await by_email.redis.exists(slot.user_registrations(ids[0]), slot.unverified_users)
    if is_invited:
        listed = await by_email.ask("GET", f"/homes?userId={user}", signed_in.body["token"])
        assert len(listed.body) == 1
        assert not await by_email.redis.exists(slot.invited_users)


async def test_invited_address_is_only_invited_until_it_is_verified(by_email: TenantWithApp) -> None:
    user, home, key = await invited(by_email)
    await by_email.register(name="Eve", email=EMAIL, password=THEIRS)
    # Who has only guessed the address puts no name into a home.
    member = await by_email.ask("GET", f"/homes/{home}/members/{user}", key)
    assert (member.body["verified"], "name" in member.body) == (False, False)
    assert reason(await by_email.sign_in(email=EMAIL, password=THEIRS)) == "USER_UNVERIFIED"
    assert await by_email.store.users.get(by_email.project, user) is None


async def test_link_that_is_sent_again_is_for_the_only_registration(by_email: TenantWithApp) -> None:
    await invited(by_email)
    await by_email.register(name="Ada", email=EMAIL, password=PASSWORD)
    first = await by_email.token()
    assert (await by_email.start("emailVerification/start", email=EMAIL)).status == 200
    again = (await by_email.messages(EMAIL))[-1]
    assert again.kind == "emailVerification"
    assert await verify(by_email, first) == 403
    assert await verify(by_email, again.token) == 200
    assert (await by_email.sign_in(email=EMAIL, password=PASSWORD)).status == 200


@pytest.mark.parametrize("is_invited", [False, True])
async def test_resent_link_verifies_no_other_registration(by_email: TenantWithApp, is_invited: bool) -> None:
    if is_invited:
        await invited(by_email)
    await by_email.register(name="Ada", email=EMAIL, password=PASSWORD)
    user = (await by_email.register(name="Eve", email=EMAIL, password=THEIRS)).body["id"]
    assert (await by_email.start("emailVerification/start", email=EMAIL)).status == 200
    # Who asks for it may be either of them: the reader of the mail sets a password.
    again = (await by_email.messages(EMAIL))[-1]
    assert again.kind == "passwordReset"
    form = {"token": again.token, "newPassword": "a third password"}
    assert (await by_email.post("/auth/user/passwordReset", **form)).status == 200
    for old in (PASSWORD, THEIRS):
        assert reason(await by_email.sign_in(email=EMAIL, password=old)) == "INCORRECT_PASSWORD"
    signed_in = await by_email.sign_in(email=EMAIL, password="a third password")
    assert (signed_in.status, signed_in.body["userId"]) == (200, user)
    assert (await by_email.ask("GET", f"/users/{user}", signed_in.body["token"])).body["name"]


LIMITS: dict[str, Any] = {
    "address_registrations": 2,
    "account_messages": 0,
    "recipient_messages": 0,
    "address_messages": 0,
    "unverified_user_s": 1,
    "invitation_s": 1,
    "verification_lifetime_s": 60,
}


@pytest.fixture(scope="module")
def narrow_node() -> Iterator[NodeProcess]:
    with private_node(**LIMITS) as node:
        yield node


async def test_address_has_only_so_many_registrations(narrow_node: NodeProcess) -> None:
    async with tenant_with_app(narrow_node, "email") as people:
        tokens = []
        for number in range(LIMITS["address_registrations"] + 2):
            made = await people.register(name=f"{number}", email=EMAIL, password=f"{PASSWORD} {number}")
            assert made.status == 201
            tokens.append(await people.token())
        # Nobody is refused; the oldest are forgotten.
        assert [await verify(people, token) for token in tokens] == [403, 403, 200, 403]
        assert (await people.sign_in(email=EMAIL, password=f"{PASSWORD} 2")).status == 200


async def test_node_deletes_unverified_registrations(narrow_node: NodeProcess) -> None:
    async with tenant_with_app(narrow_node, "phone") as people:
        user = (await people.register(name="Ada", phoneNumber=PHONE)).body["id"]
        store = people.store

        async def gone() -> bool:
            # Nodes look into all projects every ten minutes; this has them look now.
            await store._database.note_unfinished(people.project, 0)
            return await store.users.get(people.project, user) is None

        await eventually(gone, 60.0)
        assert (await people.register(name="Ada", phoneNumber=PHONE)).status == 201


async def test_unverified_registration_is_deleted(by_email: TenantWithApp) -> None:
    store, project = by_email.store, by_email.project
    guest, home, key = await invited(by_email, "guest@example.com")
    lost = (await by_email.register(name="Eve", email="lost@example.com", password=PASSWORD)).body["id"]
    operators = (await store.users.create(project, "Op", email="op@example.com")).id
    seen = (await by_email.register(name="Bob", email="bob@example.com", password=PASSWORD)).body["id"]
    await by_email.session(seen, APP)
    # A registration of the invited does not make the invitation go sooner.
    await by_email.register(name="Guest", email="guest@example.com", password=PASSWORD)

    async def left_after(days: int) -> set[int]:
        await by_email.redis.delete(*map(by_email.slot.user_registrations, (guest, lost, seen)))
        await by_email.store_at(days * DAY_MS).registrations.sweep(project)
        found = [await store.users.get_any(project, each) for each in (guest, lost, operators, seen)]
        return {user.id for user in found if user is not None}

    assert await left_after(6) == {guest, lost, operators, seen}
    assert await left_after(8) == {guest, operators, seen}
    assert await left_after(31) == {operators, seen}
    members = await by_email.ask("GET", f"/homes/{home}/members", key)
    assert guest not in {member["userId"] for member in members.body}
    slot = by_email.slot
    assert not await by_email.redis.exists(slot.unverified_users, slot.invited_users)
    again = await by_email.register(name="Guest", email="guest@example.com", password=PASSWORD)
    assert again.body["id"] != guest


async def test_registration_with_valid_token_is_kept(by_email: TenantWithApp) -> None:
    user = (await by_email.register(name="Ada", email=EMAIL, password=PASSWORD)).body["id"]
    store, aged = by_email.store, by_email.store_at(8 * DAY_MS)
    await aged.registrations.sweep(by_email.project)
    assert await store.users.get(by_email.project, user) is not None
    assert await verify(by_email, await by_email.token()) == 200
    await aged.registrations.sweep(by_email.project)
    assert (await by_email.sign_in(email=EMAIL, password=PASSWORD)).status == 200
