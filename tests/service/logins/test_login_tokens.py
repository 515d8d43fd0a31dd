"""Login tokens: made by a project key or an operator, good once and for a while, and only for their user."""

from __future__ import annotations

import asyncio

from kit.accounts import TenantWithApp
from kit.key_space import names_of

LIFETIME_MS = 60_000
MAX_LOGIN_TOKENS = 20


async def good(people: TenantWithApp, token: str) -> bool:
    """Whether the token is, and is spent now."""
    return await people.redeem_login_token(token) is not None


async def test_project_key_gets_one_for_a_user(by_email: TenantWithApp) -> None:
    user, key = await by_email.member(), await by_email.project_key("admin")
    made = await by_email.ask("POST", f"/users/{user}/loginToken", key)
    assert (made.status, made.body.keys()) == (201, {"token", "expirationTime"})
    assert await by_email.redeem_login_token(made.body["token"]) == user
    assert not await good(by_email, made.body["token"])


async def test_only_registered_users_get_login_tokens(by_email: TenantWithApp) -> None:
    owner, key = await by_email.member(), await by_email.project_key("admin")
    store, ask = by_email.store, by_email.ask
    home = (await store.homes.create(by_email.project, "home", owner)).id
    invited = await ask(
        "POST", f"/homes/{home}/members", await by_email.key_of(owner), {"email": "b@example.com"}
    )
    for user in (invited.body["userId"], 987_654_321, 2**60):
        assert (await ask("POST", f"/users/{user}/loginToken", key)).status == 404


async def test_login_token_redeemed_at_once_admits_one(by_email: TenantWithApp) -> None:
    user = await by_email.member()
    token, _ = await by_email.store.login_tokens.create(by_email.project, user, LIFETIME_MS)
    assert sorted(await asyncio.gather(*(good(by_email, token) for _ in range(20)))) == [False] * 19 + [True]


async def test_another_token_of_that_shape_is_worth_nothing(by_email: TenantWithApp) -> None:
    user, other = await by_email.member(), await by_email.member("bob@example.com")
    token, _ = await by_email.store.login_tokens.create(by_email.project, user, LIFETIME_MS)
    version, project, _, secret = token.split(".")
    for wrong in (
        f"{version}.{project}.{other}.{secret}", f"{version}.{project}.{user}.{'A' * 43}",
        f"{version}.{project}.{secret}", f"{version}.987654321.{user}.{secret}", token + "A", "", "token",
    ):  # fmt: skip
        assert not await good(by_email, wrong)
    assert await good(by_email, token)


async def test_it_is_stored_as_a_hash_and_grows_old(by_email: TenantWithApp) -> None:
    user, redis = await by_email.member(), by_email.redis
    create = by_email.store.login_tokens.create
    token, _ = await create(by_email.project, user, LIFETIME_MS)
    name = by_email.slot.user_login_tokens(user)
    [stored] = await redis.zrange(name, 0, -1)
    assert token.rpartition(".")[2].encode() not in stored
    assert 0 < await redis.pttl(name) <= LIFETIME_MS
    old, _ = await create(by_email.project, user, 1)
    # Its lifetime of 1 ms has to pass, by the clock that the node reads.
    await asyncio.sleep(0.002)
    assert not await good(by_email, old)
    # The next one takes away what is too old, and not what is good.
    await create(by_email.project, user, LIFETIME_MS)
    assert await redis.zcard(name) == 2
    assert await good(by_email, token)


async def test_user_has_so_many(by_email: TenantWithApp) -> None:
    user, create = await by_email.member(), by_email.store.login_tokens.create
    made = [(await create(by_email.project, user, LIFETIME_MS + n))[0] for n in range(MAX_LOGIN_TOKENS + 2)]
    assert [await good(by_email, token) for token in made] == [False] * 2 + [True] * MAX_LOGIN_TOKENS


async def test_they_go_with_their_user(by_email: TenantWithApp) -> None:
    user, store = await by_email.member(), by_email.store
    token, _ = await store.login_tokens.create(by_email.project, user, LIFETIME_MS)
    await store.users.delete(by_email.project, user)
    assert not await good(by_email, token)
    left = await names_of(by_email.redis, f"*:{user}:*")
    assert not [name for name in left if not name.endswith(":ended")]
