"""What a planner expects to be so after each step, and which track of a round may change what."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from delivery_model import Key, Permission


@dataclass
class Expected:
    """What the planner expects to be so."""

    keys: list[Key]
    users: set[int]
    homes: set[int]
    devices: set[int]
    members: set[tuple[int, int]]
    places: dict[int, int]
    generations: dict[int, int]
    ended: list[Key] = field(default_factory=list)
    bindings: dict[str, int] = field(default_factory=dict)
    grants: set[tuple[int | None, Permission]] = field(default_factory=set)
    """By user; None: to the group."""
    deactivated: set[int] = field(default_factory=set)

    def homes_of(self, user: int) -> list[int]:
        return sorted(home for member, home in self.members if member == user)


class Claims:
    """Who may change what in a round: one track, or many who only lean on it."""

    def __init__(self) -> None:
        self._changed: dict[Hashable, int] = {}
        self._needed: defaultdict[Hashable, set[int]] = defaultdict(set)

    def owned(self, track: int, what: Hashable) -> bool:
        return self._changed.get(what) == track

    def take(self, track: int, changes: Sequence[Hashable], needs: Sequence[Hashable] = ()) -> bool:
        """Claim all of it, or nothing and answer False."""
        for each in (*changes, *needs):
            if self._changed.get(each, track) != track:
                return False
        if any(self._needed[each] - {track} for each in changes):
            return False
        self._changed.update(dict.fromkeys(changes, track))
        for each in needs:
            self._needed[each].add(track)
        return True
