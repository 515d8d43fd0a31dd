"""The nodes of the deployment, each by the id of its boot, and which of them live.

A node lives while its lease does, which it renews three times as often as need be. The end of a lease is a
time of Redis' clock, which may be stepped: a hub without a battery learns the time minutes after its start.
So each process notes when it *saw* a lease renewed, by a clock that is never stepped, and how long it then
had to go. Only a lease that a process sees for the first time is judged by Redis' clock.

A lease that ended may still be renewed (Redis was away) until some node condemned its holder: from then on
that boot is dead for good, so that what it left can be announced once.

Scripts of nodes and their leases. By Redis' clock: those of the nodes may differ.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from time import monotonic
from typing import Final

from homewire.store.database import PAGE, Database
from homewire.store.keys import NODES, node_projects
from homewire.store.script import Script, reading

RESIGNED: Final = 1
"""The end of a lease that its node gave up."""
MOST_CONDEMNED: Final = 100
"""By one script."""
BELIEVED_S: Final = 0.25
"""How long one answer about who lives does for everybody who asks here."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """A lease as this process saw it, by a monotonic clock in seconds."""

    score: bytes
    """Its end by Redis' clock, as Redis writes it. Another one means that the lease was renewed."""
    at: float
    until: float
    is_first: bool
    """Nobody here saw it being renewed."""


class Nodes:
    """Leases of nodes, and the projects that each has devices of."""

    def __init__(self, database: Database, clock: Callable[[], float] = monotonic) -> None:
        self._database = database
        self._clock = clock
        self.lease_s = 0.0
        """How long leases are, for who watches them all the time."""
        self._seen: dict[str, Sighting] = {}
        self._as_of = float("-inf")
        self._asking = asyncio.Lock()

    async def alive(self, since: float = 0.0) -> frozenset[str]:
        """The boot ids of the nodes that live, as of a quarter of a second ago at most.

        With `since` (by this object's clock) not as of before it.
        """
        if not self._is_known(since):
            async with self._asking:
                if not self._is_known(since):
                    asked = self._clock()
                    self._note(asked, await self._database.ask(LEASES, [NODES]))
                    self._as_of = asked
        now = self._clock()
        return frozenset(boot_id for boot_id, seen in self._seen.items() if now < seen.until)

    def _note(self, at: float, found: Sequence[bytes]) -> None:
        now_ms, known, self._seen = int(found[0]), self._seen, {}
        for name, score in zip(found[1::2], found[2::2], strict=True):
            boot_id = name.decode()
            before = known.get(boot_id)
            if before is None or before.score != score:
                before = self._sighting(score, at, now_ms, is_first=before is None)
            self._seen[boot_id] = before

    def _sighting(self, score: bytes, at: float, now_ms: int, *, is_first: bool) -> Sighting:
        left_s = max(0.0, (float(score) - now_ms) / 1000)
        # Redis' clock may have been stepped between the renewal and this look at it.
        is_renewed = not is_first and float(score) > RESIGNED
        return Sighting(score, at, at + (max(left_s, self.lease_s) if is_renewed else left_s), is_first)

    async def living(self, named: Set[str]) -> Set[str]:
        """Those of the `named` that live. One that began a moment ago does."""
        asked = self._clock()
        if not named:
            return named
        living = named & await self.alive()
        # Who is named was alive when it was written down, perhaps after what we know was asked for.
        return living if living == named else named & await self.alive(asked)

    def _is_known(self, since: float) -> bool:
        return self._as_of >= max(since, self._clock() - BELIEVED_S)

    async def renew(self, boot_id: str, lease_ms: int, *, new: bool = False) -> bool:
        """Live for another `lease_ms` from now on. False: this boot is dead, and takes another id.

        `new` begins a lease of a boot that nobody knows yet.
        """
        answer = await self._database.change_outside(RENEW, [NODES], [boot_id, lease_ms, int(new)])
        return bool(answer)

    async def condemn(self) -> frozenset[str]:
        """Condemn each node whose lease was seen to end; all that are condemned.

        To be called when `alive` was asked all the time for at least `lease_s`.
        """
        await self.alive(self._clock())
        now = self._clock()
        over = [(boot_id, seen.score) for boot_id, seen in self._seen.items() if self._is_over(seen, now)]
        words = [word for each in over[:MOST_CONDEMNED] for word in each]
        dead = await self._database.change_outside(CONDEMN, [NODES], words)
        return frozenset(boot_id.decode() for boot_id in dead)

    def _is_over(self, seen: Sighting, now: float) -> bool:
        # The end of a lease that was never seen renewed may be a time of a clock that was stepped back since.
        return now >= (min(seen.until, seen.at + self.lease_s) if seen.is_first else seen.until)

    async def resign(self, boot_id: str) -> None:
        """End one's own lease: what is left of this boot may be tidied up at once."""
        await self._database.write("ZADD", NODES, "XX", RESIGNED, boot_id)

    async def forget(self, boot_id: str) -> None:
        """A node of which nothing is left."""
        await self._database.write("UNLINK", node_projects(boot_id))
        await self._database.write("ZREM", NODES, boot_id)

    async def note_project(self, boot_id: str, project_id: int) -> None:
        """Before a node's first device of a project: so that whoever reaps knows where to look."""
        await self._database.write("SADD", node_projects(boot_id), project_id)

    async def projects(self, boot_id: str) -> list[int]:
        """Where a node may have left something."""
        found: set[int] = set()
        cursor = 0
        while True:
            cursor, page = await self._database.read(
                "SSCAN", node_projects(boot_id), cursor, "COUNT", PAGE // 2
            )
            found.update(map(int, page))
            if int(cursor) == 0:
                return sorted(found)


_NOW: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

LEASES: Final = reading(f"""{_NOW}
-- KEYS: nodes. The time, then of each node that was not condemned: its boot id and the end of its lease.
local found = redis.call('ZRANGEBYSCORE', KEYS[1], 0, '+inf', 'WITHSCORES', 'LIMIT', 0, 500)
table.insert(found, 1, string.format('%d', now))
return found
""")

RENEW: Final = Script(f"""#!lua flags=allow-oom
{_NOW}
-- KEYS: nodes. ARGV: boot id, lease in ms, whether nobody knows it yet. 1: it lives; 0: it is dead.
local lease_end = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or (ARGV[3] == '1' and now or -1))
if lease_end < 0 then return 0 end
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
return 1
""")

CONDEMN: Final = Script(f"""#!lua flags=allow-oom
{_NOW}
-- KEYS: nodes. ARGV: boot ids, each with the end of its lease as it was seen: one that was renewed lives.
-- All that are condemned.
for i = 1, #ARGV, 2 do
  if redis.call('ZSCORE', KEYS[1], ARGV[i]) == ARGV[i + 1] then redis.call('ZADD', KEYS[1], -now, ARGV[i]) end
end
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(0', 'LIMIT', 0, 100)
""")
