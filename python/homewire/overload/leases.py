"""What other nodes hold, as last read, believed for as long as each one's lease lasts.

A node says `<count> <end of its lease in ms>` in its field of the subject's hash. A field past its lease
is of a node that died, or was cut off from Redis for long: it does not count and is to be removed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

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


class Elsewhere:
    """The counts of other nodes, by subject."""

    def __init__(self, own_field: bytes) -> None:
        self._own_field = own_field
        self._leases: dict[Subject, list[Lease]] = {}

    def count(self, subject: Subject, now_ms: int) -> int:
        """How many connections the others hold; 0 for a subject that is not shared."""
        return sum(lease.count for lease in self._leases.get(subject, ()) if lease.end_ms > now_ms)

    def learn(self, subject: Subject, fields: Mapping[bytes, bytes], now_ms: int) -> list[bytes]:
        """What the hash says now. The fields to remove: past their lease, or no node's word."""
        alive: list[Lease] = []
        dead: list[bytes] = []
        for field, text in fields.items():
            if field == self._own_field:
                continue
            lease = parse_lease(text)
            if lease is None or lease.end_ms <= now_ms:
                dead.append(field)
            else:
                alive.append(lease)
        self._leases[subject] = alive
        return dead

    def keep(self, subjects: Collection[Subject]) -> None:
        """Forget every subject but these."""
        for subject in self._leases.keys() - subjects:
            del self._leases[subject]

    def __len__(self) -> int:
        """How many subjects are remembered."""
        return len(self._leases)
