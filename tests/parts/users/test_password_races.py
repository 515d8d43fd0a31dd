"""Changes of a password that meet logins, sessions and other changes."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from homewire.errors import Conflict
from homewire.messages.models import OutboxMessage, OutboxQueue
from homewire.sessions.models import ClientInfo
from homewire.store.script import Script
from homewire.users.store import PasswordChange
from homewire.users.verification import REDEEM_TOKEN
from kit.accounts import APP, EMAIL, PASSWORD
from kit.tenant import StoredProject, new_project

NEW = "staple battery"


@pytest_asyncio.fixture
async def tenant(redis_client: Redis) -> StoredProject:
    return await new_project(redis_client)


async def member(tenant: StoredProject) -> int:
    """A verified user."""
    users = tenant.store.users
    return (await users.create(tenant.project, "Ada", email=EMAIL, password=PASSWORD, verified=True)).id


async def test_login_that_a_reset_outruns_opens_nothing(tenant: StoredProject) -> None:
    store, user = tenant.store, await member(tenant)
    recognised = await store.users.authenticate(tenant.project, EMAIL, PASSWORD)
    assert recognised is not None
    token = await tenant.reset_token(user)
    await store.verifications.reset_password(token, await store.users.password_hash(NEW))
    with pytest.raises(Conflict):
        await store.sessions.open(
            tenant.project, user, APP, ClientInfo(), password_hash=recognised.password_hash
        )
    assert await store.sessions.of_user(tenant.project, user) == []


async def test_session_opened_during_a_reset_ends_with_it(
    tenant: StoredProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, user = tenant.store, await member(tenant)
    token = await tenant.reset_token(user)
    change, opened = store.users._database.change, list[str]()

    async def outrun(script: Script, *rest: Any) -> list[str]:
        if script is REDEEM_TOKEN and len(opened) < 3:
            opened.append((await tenant.session(user))[1])
        return await change(script, *rest)

    monkeypatch.setattr(store.users._database, "change", outrun)
    await store.verifications.reset_password(token, await store.users.password_hash(NEW))
    assert [await store.principals.lookup(key) for key in opened] == [None] * 3
    assert await store.users.authenticate(tenant.project, EMAIL, NEW)


async def test_change_that_another_one_outran_changes_nothing(tenant: StoredProject) -> None:
    """Of two who knew the old password the second one would lock out the first."""
    user, users = await member(tenant), tenant.store.users
    replaces = await users.stored_password(tenant.project, user)
    first, second = [
        PasswordChange(await users.password_hash(each), replaces, None, OutboxMessage(OutboxQueue.STORED, ""))
        for each in (NEW, "another battery")
    ]
    await users.update(tenant.project, user, password=first)
    with pytest.raises(Conflict):
        await users.update(tenant.project, user, password=second, name="Eve")
    recognised = await users.authenticate(tenant.project, EMAIL, NEW)
    assert recognised is not None
    assert recognised.user.name == "Ada"
