"""Who a key speaks for."""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import Final

from homewire.auth import tokens
from homewire.auth.models import Principal, PrincipalKind
from homewire.projects.models import KeyScope
from homewire.projects.scripts import LOOK_UP_KEY
from homewire.store.database import Database
from homewire.store.keys import ProjectSlot

_NOBODY: Final = frozenset[KeyScope]()


class Principals:
    """Looks keys up."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def lookup(self, token: str) -> Principal | None:
        """The principal of a valid key, in one round trip. Not cached here.

        None for what is no key, an unknown, revoked or expired one, and one of a project that is
        disabled or deleted.
        """
        reference = tokens.parse(token)
        if reference is None:
            return None
        slot = ProjectSlot(reference.project_id)
        record = await self._database.ask(LOOK_UP_KEY, [slot.project, slot.key(reference.hash)])
        if not record or record[0] is None:
            return None
        kind, number, name, permissions, expires, session, ends = record
        expires_ms = int(expires or 0)
        # Redis removes an expired key itself; this covers a clock that runs ahead of Redis'.
        if 0 < expires_ms <= self._database.now_ms():
            return None
        return Principal(
            PrincipalKind(kind.decode()),
            reference.project_id,
            int(number),
            reference.key_tag,
            # Few different names (apps, device classes) for very many cached principals.
            sys.intern(name.decode()),
            _permissions(permissions.decode()),
            expires_ms,
            session.decode() if session else "",
            int(ends or 0),
        )


@lru_cache(maxsize=256)
def _permissions(words: str) -> frozenset[KeyScope]:
    return frozenset(KeyScope(word) for word in words.split()) if words else _NOBODY
