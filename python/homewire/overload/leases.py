"""What other nodes hold, as last read, believed for as long as each one's lease lasts.

A node says `<count> <end of its lease in ms>` in its field of the subject's hash. A field past its lease
is of a node that died, or was cut off from Redis for long: it does not count and is to be removed. The end
is a time of Redis' clock, which may be stepped. So how long a lease has to go is counted, by a clock that is
never stepped, from when its text was first seen.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Final, NamedTuple, TypeAlias

Subject: TypeAlias = tuple[str, int, str]
"""Kind, project (0 for an address), id or address: as `Core.held_above` names it."""
LONGEST_TEXT: Final = 40
"""Two numbers of 64 bits."""


@dataclass(frozen=True, slots=True)
class Lease:
    """One node's word on one subject."""

    count: int
    end_ms: int


def lease_text(lease: Lease) -> str:
    """A field's value."""
    return f"{lease.count} {lease.end_ms}"


def parse_lease(text: bytes) -> Lease | None:
    """None for what no node wrote."""
    count, separator, end_ms = text.partition(b" ")
    if len(text) > LONGEST_TEXT or not (separator and count.isdigit() and end_ms.isdigit()):
        return None
    return Lease(int(count), int(end_ms))


def held_key(subject: Subject) -> str:
    """The hash of a subject: one field for each node that shares it. An address belongs to no project."""
    kind, project_id, name = subject
    if kind == "address":
        return f"hw:{{a{name}}}:held"
    return f"hw:{{p{project_id}}}:held:{kind}:{name}" if name else f"hw:{{p{project_id}}}:held:{kind}"


class _Seen(NamedTuple):
    """A lease as it was seen first."""

    text: bytes
    connections: int
    until: float
    """Its end by the clock of `Elsewhere`."""


class Elsewhere:
    """The counts of other nodes, by subject. `clock` gives seconds and is never stepped."""

    def __init__(self, own_field: bytes, clock: Callable[[], float] = monotonic) -> None:
        self._own_field = own_field
        self._clock = clock
        self._leases: dict[Subject, dict[bytes, _Seen]] = {}

    def count(self, subject: Subject) -> int:
        """How many connections the others hold; 0 for a subject that is not shared."""
        leases = self._leases.get(subject)
        if not leases:
            return 0
        now = self._clock()
        return sum(seen.connections for seen in leases.values() if seen.until > now)

    def learn(self, subject: Subject, fields: Mapping[bytes, bytes], now_ms: int) -> list[bytes]:
        """What the hash says now, `now_ms` by Redis' clock. The fields to remove: past their lease, or no
        node's word."""
        now, known = self._clock(), self._leases.get(subject, {})
        alive: dict[bytes, _Seen] = {}
        for field, text in fields.items():
            seen = known.get(field)
            if seen is None or seen.text != text:
                seen = _first_seen(text, now, now_ms)
            if seen is not None and seen.until > now:
                alive[field] = seen
        alive.pop(self._own_field, None)
        self._leases[subject] = alive
        return [field for field in fields if field not in alive and field != self._own_field]

    def keep(self, subjects: Collection[Subject]) -> None:
        """Forget every subject but these."""
        for subject in self._leases.keys() - subjects:
            del self._leases[subject]

    def __len__(self) -> int:
        """How many subjects are remembered."""
        return len(self._leases)


def _first_seen(text: bytes, now: float, now_ms: int) -> _Seen | None:
    lease = parse_lease(text)
    return None if lease is None else _Seen(text, lease.count, now + (lease.end_ms - now_ms) / 1000)
