"""One change of the store in a process of its own, which a test kills where it likes.

    dying_change.py <redis url> <step> <what, e.g. homes.remove_member> <arguments as JSON>

It says `at <step>` before that step and waits there for a line; once the change is answered it says `done`.
The steps, in their order: `expect` (the outbox is noted as one to look into), `record` (the change and its
outbox entry), `announce` (the relay gets the entries), `copy` (they go to the shards), `delete` (they go from
the outbox).
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Sequence

import orjson
from redis.asyncio import Redis

from homewire.access_changes.relay import Answered, OutboxEntry, Relay
from homewire.redis.connect import connect
from homewire.repositories import Store

SHARDS = 64


class Gate:
    """Stops at one step."""

    def __init__(self, step: str) -> None:
        self._step = step

    async def pass_by(self, step: str) -> None:
        if step == self._step:
            print(f"at {step}", flush=True)
            await asyncio.to_thread(sys.stdin.readline)


class GatedRelay(Relay):
    """A relay that stops at the gate."""

    def __init__(self, redis: Redis, gate: Gate) -> None:
        super().__init__(redis, SHARDS)
        self._gate = gate

    async def expect(self, project_id: int) -> None:
        await self._gate.pass_by("expect")
        await super().expect(project_id)
        await self._gate.pass_by("record")

    async def announce(self, project_id: int, deadline: float = math.inf, entries: Answered = None) -> None:
        await self._gate.pass_by("announce")
        await super().announce(project_id, deadline, entries)

    async def _copy(self, project_id: int, entries: Sequence[OutboxEntry]) -> None:
        await self._gate.pass_by("copy")
        await super()._copy(project_id, entries)

    async def _delete_copied(self, project_id: int) -> None:
        await self._gate.pass_by("delete")
        await super()._delete_copied(project_id)


async def main(url: str, step: str, what: str, arguments: str) -> None:
    redis, gate = connect(url), Gate(step)
    relay = GatedRelay(redis, gate)
    store = Store(redis, relay)
    repository, method = what.split(".")
    await getattr(getattr(store, repository), method)(*orjson.loads(arguments))
    print("done", flush=True)
    await relay.close()
    await redis.aclose()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
