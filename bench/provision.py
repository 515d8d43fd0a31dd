"""Projects, homes and users for a benchmark, made through the store.

The CLI's demo makes every user a member of every home: too many for thousands of both.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from bench.stores import opened

T = TypeVar("T")
IN_FLIGHT = 24
APP = "bench"
PASSWORD = "battery staple bench"


@dataclass(slots=True)
class Home:
    """A home, a key of each of its members, and a device with its key."""

    home_id: int
    user_keys: list[str]
    device_id: int = 0
    device_key: str = ""


@dataclass(slots=True)
class World:
    """One project with everything a run needs."""

    project_id: int
    project_key: str
    homes: list[Home] = field(default_factory=list)

    def requests(self, connections: int) -> list[str]:
        """Request lines of `connections` listeners: each home's members in turn, one home each."""
        lines = []
        for index in range(connections):
            home = self.homes[index % len(self.homes)]
            key = home.user_keys[index // len(self.homes) % len(home.user_keys)]
            lines.append(f"/userSession/websocket?homeId={home.home_id} {authorization(key)}")
        return lines

    def bulk_targets(self) -> list[str]:
        """The homes' ids for the publisher, shuffled in the same way in each run."""
        ids = [str(home.home_id) for home in self.homes]
        random.Random(0).shuffle(ids)
        return ids

    def put_targets(self) -> list[str]:
        """One device of each home as the publisher takes them."""
        return [
            f"/devices/{home.device_id}/event {authorization(home.device_key)}"
            for home in self.homes
            if home.device_id
        ]


def authorization(key: str) -> str:
    """The value of the Authorization header."""
    return f"ModeCloud {key}"


async def together(changes: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run the changes, at most IN_FLIGHT at once; their results in order."""
    results: dict[int, T] = {}
    waiting = enumerate(changes)

    async def work() -> None:
        for number, change in waiting:
            results[number] = await change

    async with asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(work())
    return [results[number] for number in range(len(results))]


async def _make(redis_url: str, homes: int, members: int, devices: int) -> World:
    from homewire.projects.models import AccountSystem, KeyScope
    from homewire.sessions.models import ClientInfo

    async with opened(redis_url) as (store, _):
        project = await store.projects.create("bench", AccountSystem.EMAIL)
        await store.apps.create(project.id, APP)
        _, project_key = await store.project_keys.create(
            project.id, "bench", frozenset({KeyScope.SEND_EVENT, KeyScope.READ})
        )
        world = World(project.id, project_key)

        async def user(number: int) -> tuple[int, str]:
            made = await store.users.create(project.id, f"User {number}", email=f"u{number}@example.com")
            _, key = await store.sessions.open(
                project.id, made.id, APP, ClientInfo("127.0.0.1", user_agent="bench")
            )
            return made.id, key

        async def home(number: int, people: list[tuple[int, str]]) -> Home:
            made = await store.homes.create(project.id, f"Home {number}", people[0][0])
            for user_id, _ in people[1:]:
                await store.homes.add_member(project.id, made.id, user_id)
            result = Home(made.id, [key for _, key in people])
            if number < devices:
                device, key, _ = await store.devices.create(project.id, "sensor", home_id=made.id)
                result.device_id, result.device_key = device.id, key
            return result

        users = await together(user(number) for number in range(homes * members))
        world.homes = await together(
            home(number, users[number * members : (number + 1) * members]) for number in range(homes)
        )
        return world


def make(redis_url: str, *, homes: int, members: int, devices: int = 1) -> World:
    """A project with `homes` homes of `members` users each, no user in two; `devices` homes have a device."""
    return asyncio.run(_make(redis_url, homes, members, devices))


@dataclass(frozen=True, slots=True)
class Account:
    """A user with the password PASSWORD, who logged in just now."""

    user_id: int
    email: str
    key: str


async def _accounts(redis_url: str, world: World, count: int) -> list[Account]:
    from homewire.sessions.models import ClientInfo

    async with opened(redis_url) as (store, _):

        async def account(number: int) -> Account:
            email = f"account{number}@example.com"
            user = await store.users.create(
                world.project_id, f"Account {number}", email=email, password=PASSWORD, verified=True
            )
            login = ClientInfo("127.0.0.1", user_agent="bench")
            _, key = await store.sessions.open(world.project_id, user.id, APP, login)
            return Account(user.id, email, key)

        return await together(account(number) for number in range(count))


def accounts(redis_url: str, world: World, count: int) -> list[Account]:
    """More users of the project, who have passwords."""
    return asyncio.run(_accounts(redis_url, world, count))


async def _fill(redis_url: str, world: World, values: int, size: int) -> None:
    from homewire.kv.store import Owner, ValueLimits

    owner = Owner(world.project_id, "home", world.homes[0].home_id)
    async with opened(redis_url) as (store, _):
        value, bounds = f'"{"x" * size}"'.encode(), ValueLimits(values, values * (size + 100))
        await together(store.key_values.put(owner, f"v{n}", value, bounds) for n in range(values))


def fill(redis_url: str, world: World, *, values: int, size: int) -> None:
    """Store values in the first home."""
    asyncio.run(_fill(redis_url, world, values, size))


async def _log_in(redis_url: str, world: World, people: list[Account], sessions: int) -> None:
    from homewire.sessions.models import ClientInfo

    async with opened(redis_url) as (store, _):
        login = ClientInfo("127.0.0.1", user_agent="bench")
        await together(
            store.sessions.open(world.project_id, account.user_id, APP, login)
            for account in people
            for _ in range(sessions)
        )


def log_in(redis_url: str, world: World, people: list[Account], *, sessions: int) -> None:
    """Open further sessions for each of them."""
    asyncio.run(_log_in(redis_url, world, people, sessions))
