"""Login tokens: made by a project key or an operator, good once and for a while, and only for their user."""

from __future__ import annotations

import asyncio

from homewire.logins.store import MAX_LOGIN_TOKENS, parse_login_token
from homewire.projects.models import KeyScope
from homewire.store.keys import ProjectSlot
from kit.accounts import Accounts
from kit.key_space import names_of

LIFETIME_MS = 60_000


async def good(people: Accounts, token: str) -> bool:
    """Whether the token is, and is spent now."""
    says = parse_login_token(token)
    return says is not None and await people.tenant.store.login_tokens.redeem(says)


async def test_project_key_gets_one_for_a_user(by_email: Accounts) -> None:
    user, key = await by_email.member(), await by_email.project_key(KeyScope.ADMIN)
    made = await by_email.tenant.ask("POST", f"/users/{user}/loginToken", key)
    assert (made.status, made.body.keys()) == (201, {"token", "expirationTime"})
    says = parse_login_token(made.body["token"])
    assert says is not None
    assert (says.project_id, says.user_id) == (by_email.project, user)
    assert await good(by_email, made.body["token"])
    assert not await good(by_email, made.body["token"])


async def test_only_registered_users_get_login_tokens(by_email: Accounts) -> None:
    owner, key = await by_email.member(), await by_email.project_key(KeyScope.ADMIN)
    store, ask = by_email.tenant.store, by_email.tenant.ask
    home = (await store.homes.create(by_email.project, "home", owner)).id
    invited = await ask(
        "POST", f"/homes/{home}/members", await by_email.key(owner), {"email": "b@example.com"}
    )
    for user in (invited.body["userId"], 987_654_321, 2**60):
        assert (await ask("POST", f"/users/{user}/loginToken", key)).status == 404


async def test_login_token_redeemed_at_once_admits_one(by_email: Accounts) -> None:
    user = await by_email.member()
    token, _ = await by_email.tenant.store.login_tokens.create(by_email.project, user, LIFETIME_MS)
    assert sorted(await asyncio.gather(*(good(by_email, token) for _ in range(20)))) == [False] * 19 + [True]


async def test_another_token_of_that_shape_is_worth_nothing(by_email: Accounts) -> None:
    user, other = await by_email.member(), await by_email.member("bob@example.com")
    token, _ = await by_email.tenant.store.login_tokens.create(by_email.project, user, LIFETIME_MS)
    version, project, _, secret = token.split(".")
    for wrong in (
        f"{version}.{project}.{other}.{secret}", f"{version}.{project}.{user}.{'A' * 43}",
        f"{version}.{project}.{secret}", f"{version}.987654321.{user}.{secret}", token + "A", "", "token",
    ):  # fmt: skip
        assert not await good(by_email, wrong)
    assert await good(by_email, token)


async def test_it_is_stored_as_a_hash_and_grows_old(by_email: Accounts) -> None:
    user, redis = await by_email.member(), by_email.tenant.redis
    create = by_email.tenant.store.login_tokens.create
    token, _ = await create(by_email.project, user, LIFETIME_MS)
    name = ProjectSlot(by_email.project).user_login_tokens(user)
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


async def test_user_has_so_many(by_email: Accounts) -> None:
    user, create = await by_email.member(), by_email.tenant.store.login_tokens.create
    made = [(await create(by_email.project, user, LIFETIME_MS + n))[0] for n in range(MAX_LOGIN_TOKENS + 2)]
    assert [await good(by_email, token) for token in made] == [False] * 2 + [True] * MAX_LOGIN_TOKENS


async def test_they_go_with_their_user(by_email: Accounts) -> None:
    user, store = await by_email.member(), by_email.tenant.store
    token, _ = await store.login_tokens.create(by_email.project, user, LIFETIME_MS)
    await store.users.delete(by_email.project, user)
    assert not await good(by_email, token)
    left = await names_of(by_email.tenant.redis, f"*:{user}:*")
    assert not [name for name in left if not name.endswith(":ended")]
