"""Redis dies between any two writes of a stream of changes. All connections receive by its record."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Final

import pytest

from kit.client import CLOSE, Socket
from kit.recovery import TIMEOUT_S, HomesOnTwoNodes, homes_on_two_nodes
from kit.tenant import Account, StoreError
from kit.two_nodes import Processes, running_pair

KILLS: Final = 4
GUESTS: Final = 4
CHANGES: Final = (0, 12)
"""How many of the first guest to have them are answered before the kill."""
LATER_S: Final = 0.01
"""Up to which it comes later than that: two changes and their relays."""


@pytest.fixture
def processes() -> Iterator[Processes]:
    """Of one test alone: it kills some of them."""
    with running_pair() as started:
        yield started


@dataclass
class Guest:
    """Somebody whose memberships and sessions change, with a listener on each node for each session."""

    account: Account
    sessions: dict[str, list[Socket]] = field(default_factory=dict)
    changed: int = 0


async def invite(site: HomesOnTwoNodes) -> Guest:
    """A guest who is a member of the first home, with three sessions."""
    tenant = site.tenant
    guest = Guest(await tenant.user())
    await tenant.store.homes.add_member(tenant.project, site.home, guest.account.id)
    for _ in range(3):
        session, token = await tenant.session(guest.account.id, "app")
        account = Account(guest.account.id, token)
        guest.sessions[session.id] = await site.everywhere(account)
    return guest


async def change_until_redis_dies(
    site: HomesOnTwoNodes, guest: Guest, random: Random, enough: int, reached: asyncio.Event
) -> None:
    """One change after the other, as long as they are answered. Says when `enough` were."""
    homes, sessions, project = (
        site.tenant.store.homes,
        site.tenant.store.sessions,
        site.tenant.project,
    )
    mine, open_sessions = {site.home}, list(guest.sessions)
    try:
        while True:
            if guest.changed == enough:
                reached.set()
            home = random.choice([site.home, site.other_home])
            if random.random() < 0.1 and len(open_sessions) > 1:
                await sessions.end(project, open_sessions.pop())
            elif home in mine:
                mine.remove(home)
                await homes.remove_member(project, home, guest.account.id)
            else:
                mine.add(home)
                await homes.add_member(project, home, guest.account.id)
            guest.changed += 1
    except StoreError:
        return  # Whether it happened is what the record says.


async def kill_in_the_middle(site: HomesOnTwoNodes, guests: list[Guest], random: Random) -> None:
    answered, later = random.randint(*CHANGES), random.uniform(0, LATER_S)
    reached = asyncio.Event()
    streams = [
        asyncio.create_task(change_until_redis_dies(site, guest, random, answered, reached))
        for guest in guests
    ]
    await reached.wait()
    # The moment is the test's subject: nothing is waited for.
    await asyncio.sleep(later)
    site.pair.server.kill()
    await asyncio.gather(*streams)


async def receives_by_record(site: HomesOnTwoNodes, guest: Guest) -> None:
    tenant = site.tenant
    homes = await tenant.store.homes.of_user(tenant.project, guest.account.id)
    expected = {f"in {home}" for home in homes}
    live = {session.id for session in await tenant.store.sessions.of_user(tenant.project, guest.account.id)}
    for session, sockets in guest.sessions.items():
        for socket in sockets:
            if session not in live:
                frame = await socket.receive(TIMEOUT_S)
                assert (frame.opcode, frame.close_code) == (CLOSE, 4502)
                continue
            assert {await socket.receive_type() for _ in expected} == expected
            assert await socket.is_alive()


@pytest.mark.parametrize("kill", range(KILLS))
async def test_redis_is_killed_in_a_stream_of_changes(processes: Processes, kill: int) -> None:
    seed = int(os.environ.get("HOMEWIRE_SEED", secrets.randbelow(10**9)))
    print(f"HOMEWIRE_SEED={seed}")  # Shown if it fails.
    random = Random(seed)
    async with homes_on_two_nodes(processes) as site:
        guests = [await invite(site) for _ in range(GUESTS)]
        await kill_in_the_middle(site, guests, random)
        site.pair.server.start()
        # Long before the next sweep of the relay (`test_intervals_of_relay_keep_the_contract`).
        await site.announced()
        for home in (site.home, site.other_home):
            await site.send_when_possible(home, f"in {home}")
        for guest in guests:
            await receives_by_record(site, guest)
