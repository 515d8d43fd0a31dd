"""What a guesser could learn or win: by the time that an answer takes, in a race, or by a crash."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from time import perf_counter
from typing import Any

import pytest
import pytest_asyncio

from homewire.errors import Conflict
from homewire.projects.models import AccountSystem
from homewire.sessions.models import Login
from homewire.store.keys import ProjectSlot
from homewire.store.proofs import ProofKind
from homewire.store.script import Script
from homewire.users.verification import REDEEM_TOKEN
from kit.accounts import APP, EMAIL, PASSWORD, PHONE, Desk, desk_of, reason
from kit.node import NodeProcess, private_node
from kit.recovery import dying_change
from kit.tenant import Reply

UNKNOWN = "nobody@example.com"
NEW = "staple battery"
MINUTE_MS = 60_000


@pytest.fixture(scope="module")
def patient_node() -> Iterator[NodeProcess]:
    """A node without limits of attempts."""
    names = (
        *("account_attempts", "stranger_attempts", "address_attempts"),
        *("account_messages", "recipient_messages", "address_messages"),
    )
    with private_node(**dict.fromkeys(names, 0)) as node:
        yield node


@pytest_asyncio.fixture
async def desk(patient_node: NodeProcess) -> AsyncIterator[Desk]:
    async with desk_of(patient_node, AccountSystem.EMAIL) as made:
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


async def times(tries: int, *asked: Callable[[], Awaitable[Reply]]) -> list[float]:
    """The shortest time of each, in seconds: whatever else happens makes some of them longer, and none
    shorter. Asked by turns, so that what lasts hits all alike."""
    taken: list[list[float]] = [[] for _ in asked]
    for _ in range(tries):
        for ask, found in zip(asked, taken, strict=True):
            start = perf_counter()
            await ask()
            found.append(perf_counter() - start)
    return [min(found) for found in taken]


async def test_the_time_of_a_refusal_does_not_tell_who_is_registered(desk: Desk) -> None:
    await desk.member()
    await desk.tenant.store.users.create(desk.project, "none", email="without@example.com")
    wrong, unknown, without = await processor_times(
        desk.node,
        15,
        lambda: desk.sign_in(email=EMAIL, password="wrong"),
        lambda: desk.sign_in(email=UNKNOWN, password="wrong"),
        lambda: desk.sign_in(email="without@example.com", password="wrong"),
    )
    # Hashing is nearly all of it: without it the answer comes ten times sooner.
    assert wrong / 2 < unknown < wrong * 2
    assert wrong / 2 < without < wrong * 2


@pytest.mark.parametrize("what", ["emailVerification/start", "passwordReset/start"])
async def test_the_time_to_send_does_not_tell_who_is_registered(desk: Desk, what: str) -> None:
    await desk.tenant.store.users.create(desk.project, "Ada", email=EMAIL)
    known, unknown = await times(
        60, lambda: desk.start(what, email=EMAIL), lambda: desk.start(what, email=UNKNOWN)
    )
    assert known / 2 < unknown < known * 2


async def test_a_start_makes_the_same_commands_for_everybody(desk: Desk) -> None:
    """What the clock may blur, MONITOR shows."""
    await desk.tenant.store.users.create(desk.project, "Ada", email=EMAIL)

    outbox = ProjectSlot(desk.project).outbox

    async def commands(email: str) -> list[list[str]]:
        await desk.tenant.announced()
        async with desk.tenant.redis.monitor() as monitor:
            await desk.start("passwordReset/start", email=email)
            seen: list[list[str]] = []
            async for command in monitor.listen():
                words = command["command"].split()
                # The letter is queued, and goes from the outbox: that is the end of it.
                if words[0] == "XDEL" and outbox in command["command"]:
                    return seen
                # The relay's look at what others left comes when it comes.
                if words[0] == "XLEN":
                    continue
                if f"{{p{desk.project}}}" in command["command"] or "messages" in command["command"]:
                    seen.append([words[0], *words[1:2]])
            raise AssertionError("no end")

    # The first of each loads scripts.
    for email in (EMAIL, UNKNOWN):
        await desk.start("passwordReset/start", email=email)
    somebody, nobody = await commands(EMAIL), await commands(UNKNOWN)
    assert [words[0] for words in somebody] == [words[0] for words in nobody]
    assert len(somebody) >= 8


async def test_nothing_that_was_sent_is_stored_or_logged(desk: Desk, patient_node: NodeProcess) -> None:
    await desk.register(name="Ada", email=EMAIL, password=PASSWORD)
    verification = await desk.token()
    await desk.start("passwordReset/start", email=EMAIL)
    reset = await desk.token()
    await desk.post("/auth/user/passwordReset", token=reset + "x", newPassword=NEW)
    await desk.sign_in(email=EMAIL, password=PASSWORD)
    stored = b""
    async for name in desk.tenant.redis.scan_iter(f"*{{p{desk.project}}}*"):
        stored += name + (await desk.tenant.redis.dump(name) or b"")
    for secret in (verification, reset, PASSWORD, NEW):
        assert secret.rsplit(".")[-1].encode() not in stored
        assert secret not in patient_node.logged()
    assert EMAIL not in patient_node.logged()


async def test_a_login_that_a_reset_outruns_opens_nothing(desk: Desk) -> None:
    store, user = desk.tenant.store, await desk.member()
    recognised = await store.users.authenticate(desk.project, EMAIL, PASSWORD)
    assert recognised is not None
    token = await store.verifications.issue_token(desk.project, user, ProofKind.PASSWORD_RESET, MINUTE_MS)
    await store.verifications.reset_password(token, await store.users.password_hash(NEW))
    with pytest.raises(Conflict):
        await store.sessions.open(desk.project, user, APP, Login(), password_hash=recognised.password_hash)
    assert await store.sessions.of_user(desk.project, user) == []


async def test_a_session_opened_during_a_reset_ends_with_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, user = desk.tenant.store, await desk.member()
    token = await store.verifications.issue_token(desk.project, user, ProofKind.PASSWORD_RESET, MINUTE_MS)
    change, opened = store.users._database.change, list[str]()

    async def outrun(script: Script, *rest: Any) -> list[str]:
        if script is REDEEM_TOKEN and len(opened) < 3:
            opened.append(await desk.key(user))
        return await change(script, *rest)

    monkeypatch.setattr(store.users._database, "change", outrun)
    await store.verifications.reset_password(token, await store.users.password_hash(NEW))
    assert [await store.principals.lookup(key) for key in opened] == [None] * 3
    assert await store.users.authenticate(desk.project, EMAIL, NEW)


@pytest.mark.parametrize("step", ["record", "delete"])
async def test_a_reset_that_is_killed_can_be_made_again(desk: Desk, step: str) -> None:
    store, user = desk.tenant.store, await desk.member()
    keys = [await desk.key(user) for _ in range(2)]
    token = await store.verifications.issue_token(desk.project, user, ProofKind.PASSWORD_RESET, MINUTE_MS)
    given = (token, await store.users.password_hash(NEW))
    with dying_change(desk.node.redis_url, step, "verifications.reset_password", *given) as dying:
        await dying.arrives()
        dying.dies()
    # Between the ends of two sessions: the password is still the old one, and the token good.
    left = [key for key in keys if await store.principals.lookup(key) is not None]
    assert len(left) == (2 if step == "record" else 1)
    assert await store.users.authenticate(desk.project, EMAIL, PASSWORD)
    again = await desk.post("/auth/user/passwordReset", token=token, newPassword=NEW)
    assert again.status == 200
    assert [await store.principals.lookup(key) for key in keys] == [None, None]
    assert reason(await desk.sign_in(email=EMAIL, password=PASSWORD)) == "INCORRECT_PASSWORD"


async def test_a_code_of_a_deleted_user_opens_nothing(patient_node: NodeProcess) -> None:
    async with desk_of(patient_node, AccountSystem.PHONE) as desk:
        user = (await desk.register(name="Ada", phoneNumber=PHONE)).body["id"]
        code = await desk.code()
        await desk.tenant.store.users.delete(desk.project, user)
        assert reason(await desk.sign_in(phoneNumber=PHONE, code=code)) == "INVALID_AUTH_CODE"
        assert not await desk.tenant.store.verifications.redeem_code(desk.project, user, code)


@pytest.mark.parametrize("what", ["emailVerification", "passwordReset"])
async def test_a_token_waits_while_its_project_is_disabled(desk: Desk, what: str) -> None:
    await desk.register(name="Ada", email=EMAIL, password=PASSWORD)
    assert (await desk.start(f"{what}/start", email=EMAIL)).status == 200
    token, projects = await desk.token(), desk.tenant.store.projects
    form = {"token": token, **({"newPassword": NEW} if what == "passwordReset" else {})}
    await projects.disable(desk.project)
    assert reason(await desk.post(f"/auth/user/{what}", **form)) == "INVALID_TOKEN"
    await projects.enable(desk.project)
    assert (await desk.post(f"/auth/user/{what}", **form)).status == 200
