"""Quotas, and the cost of each kind of record. Scripts count what they store (`accounting.lua`).

A record counts as one, and as the bytes of its variable parts plus a fixed cost (`COSTS`) for its index
entries and Redis' overhead. So the charge of a record can be computed again when it is deleted, and the
counters return to zero with the last record.

Records are counted for an owner: `h<id>`, a home; `u<id>`, a user; `0`, the project alone. A home has a
payer, the user who created it, as long as this user is a member. The content of the home also counts for the
payer. The quotas of a user apply to a home without a payer by itself. Everything counts for the project.

Records with a TTL are counted with `book_until`: these charges are in a sorted set, score = their end by
Redis' clock, and each later charge releases some expired ones.
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
    "permission": 600,
    "value": 600,
    "app": 300,
    "project_key": 900,
    "module": 1000,
    "session": 1000,
    "provisioning_token": 900,
    "command": 250,
}
"""Bytes that a record counts besides its variable parts: the content of an entity, value, smart module,
session or queued command. The cost covers names and addresses of at most 256 characters."""

MAX_RELEASED: Final = 20
"""Expired charges that one later charge releases."""


@dataclass(frozen=True, slots=True)
class Quotas:
    """The most that may be stored. 0: no limit."""

    project_bytes: int = 0
    project_records: int = 0
    user_bytes: int = 0
    user_records: int = 0

    @classmethod
    def of(cls, settings: Settings) -> Quotas:
        """The quotas of a deployment."""
        return cls(*(getattr(settings, name) for name in QUOTA_SETTINGS))

    def as_argument(self) -> str:
        """The last argument of a script that charges."""
        return " ".join(map(str, astuple(self)))


NO_QUOTAS: Final = Quotas()
QUOTA_SETTINGS: Final = tuple(field.name for field in fields(Quotas))
