"""What a guesser could learn or win: by the time that an answer takes, in a race, or by a crash."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
import pytest_asyncio

from kit.accounts import EMAIL, PASSWORD, PHONE, TenantWithApp, reason, tenant_with_app
from kit.node import NodeProcess, private_node
from kit.recovery import dying_change
from kit.redis_server import monitored
from kit.tenant import Reply

UNKNOWN = "nobody@example.com"
NEW = "staple battery"
MINUTE_MS = 60_000


@pytest.fixture(scope="module")
def patient_node() -> Iterator[NodeProcess]:
    """A node without limits of attempts."""
    names = (
        *("account_attempts", "unknown_network_attempts", "address_attempts"),
        *("account_messages", "recipient_messages", "address_messages"),
    )
    with private_node(**dict.fromkeys(names, 0)) as node:
        yield node


@pytest_asyncio.fixture
async def people(patient_node: NodeProcess) -> AsyncIterator[TenantWithApp]:
    async with tenant_with_app(patient_node, "email") as made:
        yield made


async def processor_times(
    node: NodeProcess, tries: int, *asked: Callable[[], Awaitable[Reply]]
) -> list[float]:
    """What each takes of the node's processor time, in seconds, all tries together and by turns."""
    taken = [0.0 for _ in asked]
    for _ in range(tries):
        for at, ask in enumerate(asked):
            start = node.processor_s
            await ask()
            taken[at] += node.processor_s - start
    return taken


async def test_time_of_refusal_does_not_reveal_registered_users(people: TenantWithApp) -> None:
    await people.member()
    await people.store.users.create(people.project, "none", email="without@example.com")
    wrong, unknown, without = await processor_times(
        people.node,
        15,
        lambda: people.sign_in(email=EMAIL, password="wrong"),
        lambda: people.sign_in(email=UNKNOWN, password="wrong"),
        lambda: people.sign_in(email="without@example.com", password="wrong"),
    )
    # Hashing is nearly all of it: without it the answer comes ten times sooner.
    assert wrong / 2 < unknown < wrong * 2
    assert wrong / 2 < without < wrong * 2


@pytest.mark.parametrize("what", ["emailVerification/start", "passwordReset/start"])
async def test_time_of_sending_does_not_reveal_registered_users(people: TenantWithApp, what: str) -> None:
    await people.store.users.create(people.project, "Ada", email=EMAIL)
    known, unknown = await processor_times(
        people.node, 60, lambda: people.start(what, email=EMAIL), lambda: people.start(what, email=UNKNOWN)
    )
    assert known / 2 < unknown < known * 2


async def test_start_of_message_sends_same_commands_for_known_and_unknown_users(
    people: TenantWithApp,
) -> None:
    """What the clock may blur, MONITOR shows."""
    await people.store.users.create(people.project, "Ada", email=EMAIL)

    outbox = people.slot.outbox

    async def commands(email: str) -> list[list[str]]:
        await people.announced()
        async with monitored(people.redis) as monitor:
            await people.start("passwordReset/start", email=email)
            seen: list[list[str]] = []
            async for command in monitor.listen():
                words = command["command"].split()
                # The message is queued, and goes from the outbox: that is the end of it.
                if words[0] == "XDEL" and outbox in command["command"]:
                    return seen
                # The relay's look at what others left comes when it comes.
                if words[0] == "XLEN":
                    continue
                if f"{{p{people.project}}}" in command["command"] or "messages" in command["command"]:
                    seen.append([words[0], *words[1:2]])
            raise AssertionError("no end")

    # The first of each loads scripts.
    for email in (EMAIL, UNKNOWN):
        await people.start("passwordReset/start", email=email)
    somebody, nobody = await commands(EMAIL), await commands(UNKNOWN)
    assert [words[0] for words in somebody] == [words[0] for words in nobody]
    assert len(somebody) >= 8


async def test_nothing_that_was_sent_is_stored_or_logged(
    people: TenantWithApp, patient_node: NodeProcess
) -> None:
    await people.register(name="Ada", email=EMAIL, password=PASSWORD)
    verification = await people.token()
    await people.start("passwordReset/start", email=EMAIL)
    reset = await people.token()
    await people.post("/auth/user/passwordReset", token=reset + "x", newPassword=NEW)
    await people.sign_in(email=EMAIL, password=PASSWORD)
    stored = b""
    async for name in people.redis.scan_iter(f"*{{p{people.project}}}*"):
        stored += name + (await people.redis.dump(name) or b"")
    for secret in (verification, reset, PASSWORD, NEW):
        assert secret.rsplit(".")[-1].encode() not in stored
        assert secret not in patient_node.logged()
    assert EMAIL not in patient_node.logged()


@pytest.mark.parametrize("step", ["record", "delete"])
async def test_reset_that_is_killed_can_be_made_again(people: TenantWithApp, step: str) -> None:
    store, user = people.store, await people.member()
    keys = [await people.key_of(user) for _ in range(2)]
    token = await people.reset_token(user)
    given = (token, await store.users.password_hash(NEW))
    with dying_change(people.node.redis_url, step, "verifications.reset_password", *given) as dying:
        await dying.arrives()
        dying.dies()
    # Between the ends of two sessions: the password is still the old one, and the token good.
    left = [key for key in keys if await store.principals.lookup(key) is not None]
    assert len(left) == (2 if step == "record" else 1)
    assert await store.users.authenticate(people.project, EMAIL, PASSWORD)
    again = await people.post("/auth/user/passwordReset", token=token, newPassword=NEW)
    assert again.status == 200
    assert [await store.principals.lookup(key) for key in keys] == [None, None]
    assert reason(await people.sign_in(email=EMAIL, password=PASSWORD)) == "INCORRECT_PASSWORD"


async def test_code_of_a_deleted_user_opens_nothing(patient_node: NodeProcess) -> None:
    async with tenant_with_app(patient_node, "phone") as people:
        user = (await people.register(name="Ada", phoneNumber=PHONE)).body["id"]
        code = await people.code()
        await people.store.users.delete(people.project, user)
        assert reason(await people.sign_in(phoneNumber=PHONE, code=code)) == "INVALID_AUTH_CODE"
        assert not await people.store.verifications.redeem_code(people.project, user, code)


@pytest.mark.parametrize("what", ["emailVerification", "passwordReset"])
async def test_token_waits_while_its_project_is_disabled(people: TenantWithApp, what: str) -> None:
    await people.register(name="Ada", email=EMAIL, password=PASSWORD)
    assert (await people.start(f"{what}/start", email=EMAIL)).status == 200
    token, projects = await people.token(), people.store.projects
    form = {"token": token, **({"newPassword": NEW} if what == "passwordReset" else {})}
    await projects.disable(people.project)
    assert reason(await people.post(f"/auth/user/{what}", **form)) == "INVALID_TOKEN"
    await projects.enable(people.project)
    assert (await people.post(f"/auth/user/{what}", **form)).status == 200
