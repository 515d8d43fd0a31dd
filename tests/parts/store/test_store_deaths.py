"""Whoever changes something dies between any two of the commands for it, and Redis is killed then: no record
is left half made, and to ask again has the same outcome."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import pytest
from mortal_groups import HALL, SINK
from mortal_store import (
    BOUNDS,
    LIFETIME_MS,
    SHARDS,
    Death,
    Pictures,
    StoredProject,
    mortal_store,
    new_module,
    new_stored_project,
)
from redis.asyncio import Redis

from homewire.access_changes.relay import Relay
from homewire.entities.store import Entity
from homewire.errors import Conflict, InvalidInput, NotConfirmed, Unavailable, UnknownRecord
from homewire.events.queued_commands import QueueBounds
from homewire.homes.members import Invitee
from homewire.homes.models import Role
from homewire.logins.store import parse_login_token
from homewire.messages.models import OutboxMessage, OutboxQueue
from homewire.redis.connect import connect
from homewire.repositories import Store
from homewire.sessions.models import ClientInfo
from homewire.store.keys import MESSAGES_KEPT, ProjectSlot
from homewire.users.models import PendingVerification, ProofKind
from kit.node import eventually
from kit.redis_server import BusServer, running_server

SAYS_SO: Final = (Conflict, InvalidInput, UnknownRecord)
"""What a repeated change may be told: it is made, or what it is about is gone."""


NEVER: Final = 1_000_000


@dataclass(frozen=True)
class Outcome:
    """Pictures of what a change does when nobody dies."""

    before: Any
    after: Any
    twice: Any


@dataclass(frozen=True)
class Change:
    """A changing operation of a repository."""

    make: Callable[[Store, StoredProject], Awaitable[Any]]
    on_demand: bool = False
    swept: bool = False
    """Whether housekeeping finishes it, from its first step on."""
    stepwise: bool = False
    """Whether it is several changes, one after the other, each of which is whole."""


async def invite(store: Store, stored: StoredProject) -> None:
    project = await store.projects.get(stored.project)
    assert project is not None
    await store.members.invite(project, stored.tent, Invitee(email="new@example.com"))


TOLD: Final = PendingVerification(LIFETIME_MS, lambda _: OutboxMessage(OutboxQueue.STORED, "a letter"))
"""In an e-mail project, whose users are sent tokens."""


async def invite_by_mail(store: Store, stored: StoredProject) -> None:
    project, invitee = await store.projects.get(stored.project), Invitee(email="new@example.com")
    assert project is not None
    await store.members.invite(project, stored.tent, invitee, message=TOLD.make_message(""))


MESSAGES: Final = {
    "who registers": Change(
        lambda s, w: s.users.create(w.project, "New", email="new@example.com", verification=TOLD)
    ),
    "who was invited registers": Change(
        lambda s, w: s.users.create(w.project, "G", email="guest@example.com", verification=TOLD)
    ),
    "who forgot the password": Change(
        lambda s, w: s.verifications.issue_token(
            w.project, w.ada, ProofKind.PASSWORD_RESET, LIFETIME_MS, TOLD.make_message
        )
    ),
    "who is added to a home": Change(invite_by_mail),
}
"""Changes that somebody is written to because of."""


async def redeem_code(store: Store, stored: StoredProject) -> None:
    """Issuing it is another change; here it is one whose outcome is in no picture but the user's."""
    code = await store.verifications.issue_code(stored.project, stored.bob, LIFETIME_MS)
    await store.verifications.redeem_code(stored.project, stored.bob, code)


async def redeem_login_token(store: Store, stored: StoredProject) -> None:
    stands_for = parse_login_token(stored.login_token)
    assert stands_for is not None
    await store.login_tokens.redeem(stands_for)


async def provision(store: Store, stored: StoredProject) -> None:
    stands_for = await store.provisioning.get(stored.provisioning)
    if stands_for is None:
        raise UnknownRecord("token", "")
    await store.provisioning.redeem(stored.provisioning, stands_for, None)


async def claim(store: Store, stored: StoredProject) -> None:
    await store.devices.claim(stored.project, stored.spare.claim_code or "", stored.tent, stored.ada)


CHANGES: Final = {
    "users.create": Change(lambda s, w: s.users.create(w.project, "New", email="new@example.com")),
    "users.create, invited": Change(lambda s, w: s.users.create(w.project, "G", email="guest@example.com")),
    "users.update": Change(lambda s, w: s.users.update(w.project, w.ada, name="Eve")),
    "users.delete": Change(lambda s, w: s.users.delete(w.project, w.ada), swept=True),
    "users.update, time zone": Change(
        lambda s, w: s.users.update(w.project, w.ada, ui_time_zone="Asia/Tokyo")
    ),
    "login_tokens.create": Change(lambda s, w: s.login_tokens.create(w.project, w.ada, LIFETIME_MS)),
    "login_tokens.redeem": Change(redeem_login_token),
    "homes.create": Change(lambda s, w: s.homes.create(w.project, "New", w.bob)),
    "homes.update": Change(lambda s, w: s.homes.update(w.project, w.hut, {"name": "H", "timezone": "UTC"})),
    "homes.set_deactivated": Change(
        lambda s, w: s.homes.set_deactivated(w.project, w.hut, True, {"name": "H"})
    ),
    "homes.delete": Change(lambda s, w: s.homes.delete(w.project, w.hut), swept=True),
    "homes.add_member": Change(lambda s, w: s.homes.add_member(w.project, w.tent, w.bob)),
    "members.invite": Change(invite),
    "homes.remove_member": Change(lambda s, w: s.homes.remove_member(w.project, w.hut, w.bob)),
    "homes.remove_member, invited": Change(lambda s, w: s.homes.remove_member(w.project, w.hut, w.guest)),
    "homes.remove_member, last": Change(
        lambda s, w: s.homes.remove_member(w.project, w.tent, w.ada), swept=True
    ),
    "homes.set_role": Change(lambda s, w: s.homes.set_role(w.project, w.hut, w.bob, Role.OWNER)),
    "devices.create": Change(lambda s, w: s.devices.create(w.project, "lamp", w.hut, "new")),
    "devices.set_claimable": Change(lambda s, w: s.devices.set_claimable(w.project, w.lamp.id, 1 << 42)),
    "devices.claim": Change(claim),
    "devices.update": Change(lambda s, w: s.devices.update(w.lamp, name="lit", tag="hall")),
    "devices.move": Change(lambda s, w: s.devices.move(w.project, w.lamp.id, w.tent)),
    "devices.leave_home": Change(lambda s, w: s.devices.leave_home(w.lamp)),
    "devices.leave_home, on demand": Change(lambda s, w: s.devices.leave_home(w.lamp), on_demand=True),
    "devices.delete": Change(lambda s, w: s.devices.delete(w.project, w.lamp.id)),
    "devices.delete, signed in": Change(lambda s, w: s.devices.delete(w.project, w.spare.id), stepwise=True),
    "devices.rotate_key": Change(lambda s, w: s.devices.rotate_key(w.project, w.lamp.id)),
    "devices.rotate_key, signed in": Change(
        lambda s, w: s.devices.rotate_key(w.project, w.spare.id), stepwise=True
    ),
    "provisioning.begin": Change(
        lambda s, w: s.provisioning.begin(w.project, w.tent, w.ada, "lamp"), on_demand=True
    ),
    "provisioning.redeem": Change(provision, on_demand=True),
    "homes.delete, on demand": Change(
        lambda s, w: s.homes.delete(w.project, w.hut), on_demand=True, swept=True
    ),
    "key_values.put, home": Change(lambda s, w: s.key_values.put(w.of_hut, "new", b"1", BOUNDS)),
    "key_values.put, device": Change(lambda s, w: s.key_values.put(w.of_lamp, "mood", b"[1,2]", BOUNDS)),
    "key_values.delete, home": Change(lambda s, w: s.key_values.delete(w.of_hut, "mood")),
    "key_values.delete, device": Change(lambda s, w: s.key_values.delete(w.of_lamp, "mood")),
    "entities.create": Change(
        lambda s, w: s.entities.create(Entity("new", w.project, w.hut, "part", parent_id="room"), 10)
    ),
    "entities.update": Change(lambda s, w: s.entities.update(w.room, {"entity_class": "hall"})),
    "entities.delete": Change(lambda s, w: s.entities.delete(w.project, "sink")),
    "permissions.grant": Change(lambda s, w: s.permissions.grant(w.project, w.ada, SINK)),
    "permissions.revoke": Change(lambda s, w: s.permissions.revoke(w.project, w.ada, HALL)),
    "groups.create": Change(lambda s, w: s.groups.create(w.project, "guests")),
    "groups.delete": Change(lambda s, w: s.groups.delete(w.project, w.staff), swept=True),
    "groups.grant": Change(lambda s, w: s.groups.grant(w.project, w.staff, SINK)),
    "groups.revoke": Change(lambda s, w: s.groups.revoke(w.project, w.staff, HALL)),
    "groups.quit": Change(lambda s, w: s.groups.quit(w.project, w.staff, w.bob)),
    "sessions.open": Change(lambda s, w: s.sessions.open(w.project, w.bob, "app", ClientInfo())),
    "sessions.open_node": Change(lambda s, w: s.sessions.open_node(w.project, w.lamp.id, ClientInfo())),
    "sessions.end, of a device": Change(lambda s, w: s.sessions.end(w.project, w.node_session)),
    "sessions.end_all_of_device": Change(lambda s, w: s.sessions.end_all_of_device(w.project, w.spare.id)),
    "sessions.end": Change(lambda s, w: s.sessions.end(w.project, w.session)),
    "verifications.issue_token": Change(
        lambda s, w: s.verifications.issue_token(w.project, w.bob, ProofKind.PASSWORD_RESET, LIFETIME_MS)
    ),
    "verifications.verify_email": Change(lambda s, w: s.verifications.verify_email(w.email_token)),
    "verifications.reset_password": Change(lambda s, w: s.verifications.reset_password(w.reset_token, "x")),
    "verifications.redeem_code": Change(redeem_code, stepwise=True),
    "smart_modules.create": Change(lambda s, w: new_module(s, w, "new")),
    "smart_modules.suspend": Change(lambda s, w: s.smart_modules.suspend(w.project, "hook")),
    "smart_modules.delete": Change(lambda s, w: s.smart_modules.delete(w.project, "hook")),
    "queued_commands.add": Change(
        lambda s, w: s.queued_commands.add(
            w.project, w.command(), QueueBounds(10, 10_000), ("scope", "print", 60_000)
        )
    ),
    "queued_commands.remove": Change(lambda s, w: s.queued_commands.remove(w.project, w.lamp.id, [1])),
}


@pytest.fixture(scope="module")
def killed_server() -> Iterator[BusServer]:
    with running_server() as running:
        yield running


@asynccontextmanager
async def living_store(server: BusServer, *, empty: bool = False) -> AsyncIterator[tuple[Store, Pictures]]:
    # Many worlds are looked at at once: who found no connection would be given a second to get one.
    redis: Redis = connect(server.url, max_connections=1000)
    try:
        if empty:
            # To look for the keys of one project is to look at all there are.
            await redis.flushall()
        store = Store(redis, Relay(redis, SHARDS))
        yield store, Pictures(store, redis)
    finally:
        await redis.aclose()


async def asked(store: Store, change: Change, stored: StoredProject) -> None:
    """The change, or why it need not be made any more."""
    try:
        await change.make(store, stored)
    except SAYS_SO:
        return


async def dies(server: BusServer, change: Change, stored: StoredProject, after: int) -> int:
    """Make the change and die after so many commands; how many were sent."""
    death = Death(after)
    async with mortal_store(server.url, death) as mortal:
        try:
            await change.make(mortal, stored)
        except (Unavailable, NotConfirmed):
            assert death.has_come
    return after - death.after


async def swept(store: Store, stored: StoredProject) -> None:
    """As housekeeping does."""
    await store.users.sweep(stored.project)
    await store.homes.sweep(stored.project)
    await store.groups.sweep(stored.project)


async def examined(
    store: Store, pictures: Pictures, change: Change, stored: StoredProject, outcome: Outcome
) -> Any:
    """Look at what a death left, and ask for the change once more; the picture of what was left."""
    left = await pictures.take(stored)
    if change.swept and left != outcome.before:
        await swept(store, stored)
        assert await pictures.take(stored) == outcome.after
    elif not change.stepwise:
        assert left in (outcome.before, outcome.after)
    await asked(store, change, stored)
    assert await pictures.take(stored) in (outcome.after, outcome.twice)
    return left


async def relayed(redis: Redis, worlds: Sequence[StoredProject]) -> None:
    """As every node does with what others left."""

    async def nothing_is_left() -> bool:
        return not any([await redis.xlen(ProjectSlot(stored.project).outbox) for stored in worlds])

    relaying = asyncio.create_task(Relay(redis, SHARDS).run())
    try:
        await eventually(nothing_is_left)
    finally:
        relaying.cancel()
        await asyncio.gather(relaying, return_exceptions=True)


@pytest.mark.parametrize("name", MESSAGES)
async def test_message_goes_out_with_its_change(killed_server: BusServer, name: str) -> None:
    """Once, if the change was made, wherever its process died; and before a change is answered."""
    change = MESSAGES[name]
    async with living_store(killed_server, empty=True) as (store, pictures), killed_server.client() as redis:
        model = await new_stored_project(store, on_demand=False)
        before = await pictures.take(model)
        commands = await dies(killed_server, change, model, NEVER)
        assert await redis.xlen(MESSAGES_KEPT) == 1
        worlds = await asyncio.gather(*(new_stored_project(store, on_demand=False) for _ in range(commands)))
    await asyncio.gather(*map(partial(dies, killed_server, change), worlds, range(commands)))
    killed_server.kill()
    killed_server.start()
    async with living_store(killed_server) as (_, pictures), killed_server.client() as redis:
        made = [stored for stored in worlds if await pictures.take(stored) != before]
        await relayed(redis, worlds)
        assert await redis.xlen(MESSAGES_KEPT) == 1 + len(made)
    assert 0 < len(made) < len(worlds)


@pytest.mark.parametrize("name", CHANGES)
async def test_change_is_made_or_not(killed_server: BusServer, name: str) -> None:
    change = CHANGES[name]
    async with living_store(killed_server, empty=True) as (store, pictures):
        model = await new_stored_project(store, change.on_demand)
        before = await pictures.take(model)
        commands = await dies(killed_server, change, model, NEVER)
        after = await pictures.take(model)
        await asked(store, change, model)
        outcome = Outcome(before, after, await pictures.take(model))
        ends = [*range(commands), NEVER]
        worlds = await asyncio.gather(*(new_stored_project(store, change.on_demand) for _ in ends))
    await asyncio.gather(*map(partial(dies, killed_server, change), worlds, ends))
    killed_server.kill()
    killed_server.start()
    async with living_store(killed_server) as (store, pictures):
        left = await asyncio.gather(*(examined(store, pictures, change, each, outcome) for each in worlds))
    assert left[0] == before, "nothing was sent"
    assert left[-1] == after, "everything was sent"
