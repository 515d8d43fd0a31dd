"""The deletion of a user with many homes: how long its answer takes, and when the last home is gone."""

from __future__ import annotations

import asyncio
import http.client
import time
from typing import TYPE_CHECKING, Final

from bench import servers
from bench.provision import authorization
from bench.report import Goal, Spread, Table
from bench.servers import BenchError
from bench.stores import opened

if TYPE_CHECKING:
    from homewire.repositories import Store

MANY_HOMES: Final = 1_000
"""As many as a user may be a member of (`homes_per_user`)."""
AT_ONCE: Final = 20
"""The most that are left before the deletion is answered (`HOMES_LEFT_AT_ONCE`)."""
DEVICES_A_HOME: Final = 2
IN_FLIGHT: Final = 24
ENDS_S: Final = 300.0
LOOK_S: Final = 0.05


def run(*, pairs: int, small: bool) -> Table:
    """Users who are alone in their homes, so that these go with them, devices and all."""
    sizes = (AT_ONCE, 50 if small else MANY_HOMES)
    answered: dict[int, list[float]] = {size: [] for size in sizes}
    gone: dict[int, list[float]] = {size: [] for size in sizes}
    with servers.redis("everysec") as url, servers.homewire(url) as (_, port):
        for _ in range(pairs):
            for size in sizes:
                first, last = asyncio.run(_delete_one(url, port, size))
                answered[size].append(first)
                gone[size].append(last)
    table = Table(
        "user-delete",
        f"DELETE /users/{{id}}, alone in homes with {DEVICES_A_HOME} devices each",
        ["", "answered after ms", "last home gone after s"],
    )
    for size in sizes:
        in_ms = Spread.of([seconds * 1000 for seconds in answered[size]])
        table.add(f"{size:,} homes", in_ms.text(0), Spread.of(gone[size]).text(1))
    for size in sizes:
        goal = Goal(f"a user with {size:,} homes: answered within 1 s", "answered", at_most=1.0)
        table.judge(goal, Spread.of(answered[size]))
    table.raw = {f"{size} homes": {"answered": answered[size], "gone": gone[size]} for size in sizes}
    return table


async def _delete_one(url: str, port: int, homes: int) -> tuple[float, float]:
    """Seconds until a deletion is answered, and until nothing of the user is left."""
    from homewire.store.keys import ProjectSlot

    async with opened(url) as (store, redis):
        project, user, key = await _populate(store, homes)
        began = time.perf_counter()
        status = await asyncio.to_thread(_delete, port, user, key)
        answered = time.perf_counter() - began
        if status != 204:
            raise BenchError(f"the deletion was answered with {status}")
        slot = ProjectSlot(project)
        while await redis.exists(slot.departing_users, slot.homes):
            if time.perf_counter() - began > ENDS_S:
                raise BenchError(f"{homes} homes are not gone after {ENDS_S:.0f} s")
            await asyncio.sleep(LOOK_S)
        return answered, time.perf_counter() - began


async def _populate(store: Store, homes: int) -> tuple[int, int, str]:
    """A project and a user of it, with homes and devices; the ids, and a key of the user."""
    from homewire.demo import APP, open_session
    from homewire.projects.models import AccountSystem

    project = (await store.projects.create("bench", AccountSystem.EMAIL)).id
    await store.apps.create(project, APP)
    user = (await store.users.create(project, "Ada", email="ada@example.com")).id
    key = await open_session(store, project, user)
    waiting = iter(range(homes))

    async def some() -> None:
        for number in waiting:
            home = await store.homes.create(project, f"Home {number}", user)
            for _ in range(DEVICES_A_HOME):
                await store.devices.create(project, "sensor", home_id=home.id)

    await asyncio.gather(*(some() for _ in range(IN_FLIGHT)))
    return project, user, key


def _delete(port: int, user: int, key: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ENDS_S)
    try:
        connection.request("DELETE", f"/users/{user}", headers={"Authorization": authorization(key)})
        return connection.getresponse().status
    finally:
        connection.close()
