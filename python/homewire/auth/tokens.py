"""Keys and tokens: `v1.<projectId>.<secret>`, 256 random bits, stored only as their SHA-256.

A token names its project, so that its slot is known without a lookup. Hashing without salt or
stretching is right here: a random secret of 256 bits cannot be guessed from its hash.

Keys are looked up by their hash: see `Principals`.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import sys
from functools import lru_cache
from typing import Final, NamedTuple

from homewire.auth.models import Principal, PrincipalKind
from homewire.projects.models import KeyScope
from homewire.store.database import Database
from homewire.store.keys import ProjectSlot
from homewire.store.script import lua, reading

LOOK_UP_KEY: Final = reading(lua("homewire.projects", "look_up_key"))
SECRET_BYTES: Final = 32
# 32 bytes are 43 characters of base64url without padding.
_SHAPE: Final = re.compile(r"v1\.([1-9][0-9]{0,15})\.[A-Za-z0-9_-]{43}", re.ASCII)


class TokenReference(NamedTuple):
    """What may be kept of a token: where its record lies, never the token itself."""

    project_id: int
    hash: str
    """SHA-256 of the whole token, 64 hex digits."""

    @property
    def key_tag(self) -> int:
        """The first 8 bytes of the hash, big endian: how the core names this key."""
        return key_tag(self.hash)


def mint(project_id: int) -> tuple[str, TokenReference]:
    """A new token of a project. The token is shown once; store the reference."""
    token = f"v1.{project_id}.{secrets.token_urlsafe(SECRET_BYTES)}"
    return token, _reference(project_id, token)


def parse(token: str) -> TokenReference | None:
    """The reference of a well-shaped token; None, without any lookup, for everything else."""
    shape = _SHAPE.fullmatch(token)
    return _reference(int(shape[1]), token) if shape else None


def token_hash(token: str) -> str:
    """What is stored in the place of a token: SHA-256, 64 hex digits."""
    return hashlib.sha256(token.encode("ascii")).hexdigest()


def key_tag(hash_digits: str) -> int:
    """The key tag of a stored hash: an unsigned 64-bit integer."""
    return int(hash_digits[:16], 16)


def _reference(project_id: int, token: str) -> TokenReference:
    return TokenReference(project_id, token_hash(token))


_NO_SCOPES: Final = frozenset[KeyScope]()


class Principals:
    """Looks keys up."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def lookup(self, token: str) -> Principal | None:
        """The principal of a valid key, in one round trip. Not cached here.

        None for what is no key, an unknown, revoked or expired one, and one of a project that is
        disabled or deleted.
        """
        reference = parse(token)
        if reference is None:
            return None
        slot = ProjectSlot(reference.project_id)
        record = await self._database.ask(LOOK_UP_KEY, [slot.project, slot.key(reference.hash)])
        if not record or record[0] is None:
            return None
        kind, number, name, scopes, expires, session, ends = record
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
            _scopes(scopes.decode()),
            expires_ms,
            session.decode() if session else "",
            int(ends or 0),
        )


@lru_cache(maxsize=256)
def _scopes(words: str) -> frozenset[KeyScope]:
    return frozenset(KeyScope(word) for word in words.split()) if words else _NO_SCOPES
