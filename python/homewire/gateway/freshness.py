"""Whether what was once read from the store is still so, without asking the store.

Every change that matters is announced by a control record in the shards it concerns, and the core
counts, for each shard, the records that this node has read: its mark. What was read from the store
while a mark stood still is as new as the mark, and stays so until the mark moves.

So an answer is as old as this node's tail is behind, no older. What this node announced itself it forgets
before the change is answered (`forget`): who is told that something ended finds it ended here, whether the
tail has come to the record or not. A tail that hears nothing raises no mark: after a second of silence
nothing remembered is trusted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

from homewire._core import shard_of

SILENCE_MS: Final = 1_000
"""A node that has not heard from Redis for longer trusts no cached key (design, *The store*)."""

ANEW: Final = -1
"""As the total that an answer has to be of: one that nothing remembered has, so the store is asked."""

_MOVED: Final = -1


class Marks(Protocol):
    """What is asked of the core."""

    def mark(self, shards: list[int], /) -> int:
        """How many control records of these shards this node has read."""
        ...

    def mark_of_all(self) -> int:
        """The same over all shards."""
        ...

    def tail_silence_ms(self) -> int:
        """How long ago Redis last answered the tail."""
        ...


class Mark(list[int]):
    """One shard's mark at some moment, shared by everything that was read at it.

    It holds the shard's number until it was found to have moved, or is forgotten, then nothing. So it is
    true as long as it stands, which a thousand are asked by `itertools.compress` without a line of Python,
    and it is itself the list of shards that the core wants.
    """

    __slots__ = ("records",)

    def __init__(self, shard: int, records: int) -> None:
        super().__init__((shard,))
        self.records = records

    def expire(self) -> None:
        """It has moved, or is about to. Marks only grow, so this is for good."""
        self.clear()
        self.records = _MOVED


class Freshness:
    """The marks of one node. Without a core (a process that is api only) nothing is ever trusted."""

    __slots__ = ("_current", "_forgotten", "_marks", "_reviewed", "_shards", "_total")

    def __init__(self, marks: Marks | None, shards: int) -> None:
        self._marks: Marks = _Nothing() if marks is None else marks
        self._shards = shards
        self._current: dict[int, Mark] = {}
        self._forgotten = 0
        self._reviewed = self._total = self._marks.mark_of_all()

    def heard(self) -> bool:
        """Whether Redis was heard within the last second: else nothing remembered counts."""
        return self._marks.tail_silence_ms() <= SILENCE_MS

    def total(self) -> int:
        """The mark of all shards, and how often some were forgotten: it stands only if both do. Equal totals
        are one object: entries keep it, many the same."""
        total = self._marks.mark_of_all() + self._forgotten
        if total != self._total:
            self._total = total
        return self._total

    def mark_of(self, identifier: int) -> Mark:
        """The mark, now, of the shard of a home, device, user, project or project key."""
        return self._mark(shard_of(identifier, self._shards))

    def marks_of(self, identifiers: Iterable[int]) -> dict[int, Mark]:
        """The same for many."""
        shards = {each: shard_of(each, self._shards) for each in identifiers}
        marks = {shard: self._mark(shard) for shard in set(shards.values())}
        return {each: marks[shard] for each, shard in shards.items()}

    def forget(self, shards: Iterable[int]) -> None:
        """Records were written to these shards by this node: what was read before is not so any more."""
        # Also what is being read now, and has no mark yet, is not remembered then.
        self._forgotten += 1
        for shard in shards:
            mark = self._current.pop(shard, None)
            if mark is not None:
                mark.expire()

    def trusts(self, mark: Mark) -> bool:
        """Whether what was read at `mark` is still so. For one entry; see `review` for many."""
        return self._marks.mark(mark) == mark.records and self._marks.tail_silence_ms() <= SILENCE_MS

    def review(self) -> bool:
        """Empty every mark that has moved; whether those that are left may be trusted.

        Costs a look at the total as long as it stands, and one at each shard in use when it moved.
        """
        # Read before the shards: what moves meanwhile is found the next time.
        total = self._marks.mark_of_all()
        if total != self._reviewed:
            for shard, mark in list(self._current.items()):
                if self._marks.mark(mark) != mark.records:
                    self._current.pop(shard).expire()
            self._reviewed = total
        return self._marks.tail_silence_ms() <= SILENCE_MS

    def _mark(self, shard: int) -> Mark:
        records = self._marks.mark([shard])
        known = self._current.get(shard)
        if known is not None:
            if known.records == records:
                return known
            known.expire()
        fresh = self._current[shard] = Mark(shard, records)
        return fresh


class _Nothing:
    """No tail: nobody would tell what changed."""

    def mark(self, _shards: list[int], /) -> int:
        return 0

    def mark_of_all(self) -> int:
        return 0

    def tail_silence_ms(self) -> int:
        return SILENCE_MS + 1
