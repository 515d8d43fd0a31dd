"""A process that dies where the test wants it: `python relay_child.py REDIS_URL PROJECT HOW …`.

`change HOME USER`: removes a member, and stops between record and announcement.
`relay SHARDS`: relays what stands in the outbox, and stops after copies to so many shards.
Each says so on standard output, and waits to be killed.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Sequence

from homewire.access_changes import relay
from homewire.redis.connect import connect
from homewire.redis.pipeline import Call
from homewire.repositories import Store


async def stop(where: str) -> None:
    sys.stdout.write(where + "\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


class StopsBeforeTheAnnouncement(relay.Relay):
    async def announce(
        self, project_id: int, deadline: float = math.inf, entries: relay.Answered = None
    ) -> None:
        await stop("recorded")


class StopsAmongTheCopies(relay.Relay):
    shards = 0

    async def _write_copies(self, calls: Sequence[Call]) -> int:
        written = await super()._write_copies(calls[: self.shards])
        await stop("copied")
        return written


async def main(url: str, project: int, how: str, *numbers: int) -> None:
    redis = connect(url)
    if how == "change":
        home, user = numbers
        await Store(redis, StopsBeforeTheAnnouncement(redis, 64)).homes.remove_member(project, home, user)
    else:
        stopping = StopsAmongTheCopies(redis, 64)
        [stopping.shards] = numbers
        await stopping.announce(project)


if __name__ == "__main__":
    url, project, how, *numbers = sys.argv[1:]
    asyncio.run(main(url, int(project), how, *map(int, numbers)))
