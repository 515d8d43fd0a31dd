"""What is stored in a project, counted by the scripts that store it, and the quotas that hold for it.

A record counts as one, and as the bytes of its parts that vary plus a fixed cost (`COSTS`), which covers its
entries in indexes and Redis' own overhead. So what a record was charged with can always be found again when
it goes, and the counters come back to zero with the last record.

An owner is what records are counted for: `h<id>`, a home; `u<id>`, a user; `0`, the project alone. A home has
a payer, the user who created it, as long as that user is a member: what the home holds counts for the payer,
too. The quotas of a user hold for a home without a payer by itself. Everything counts for the project.

What Redis removes by itself, when its time is over, is counted with `book_until`: such charges stand in a
sorted set, score = when they end by Redis' clock, and each later charge gives back a few that are over.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from homewire.settings import Settings

COSTS: Final = {
    "user": 1500,
    "home": 800,
    "member": 250,
    "device": 1500,
    "entity": 1200,
    "group": 600,
    "group_member": 250,
    "right": 600,
    "value": 600,
    "app": 300,
    "project_key": 900,
    "module": 1000,
    "session": 1000,
    "provisioning_token": 900,
    "command": 250,
}
"""Bytes that a record of each kind counts beside the parts that vary: the content of an entity, a value, a
smart module, a session, a queued command. Names and addresses, of at most 256 characters, are covered."""

FORGOTTEN_AT_ONCE: Final = 20
"""Charges that are over, given back by one later charge."""


@dataclass(frozen=True, slots=True)
class Quotas:
    """The most that may be stored. 0: no limit."""

    project_bytes: int = 0
    project_records: int = 0
    user_bytes: int = 0
    user_records: int = 0

    @classmethod
    def of(cls, settings: Settings) -> Quotas:
        """Those of a deployment."""
        return cls(*(getattr(settings, name) for name in QUOTA_SETTINGS))

    def as_argument(self) -> str:
        """The last argument of a script that charges."""
        return " ".join(map(str, astuple(self)))


NO_QUOTAS: Final = Quotas()
QUOTA_SETTINGS: Final = tuple(field.name for field in fields(Quotas))
